"""The sizes of videos: those that a family can encode, and that runs without data latents train on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastvideo_core.config import limits
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, DataError, Problem

ENLARGED = 1.25
"""A clip whose picture is enlarged by more than this factor, along one side, is noted, and avoided where areas are several."""


@dataclass(frozen=True)
class VideoGeometry:
    """The pixel sizes and frame counts that a video autoencoder encodes without loss.

    Args:
        frames_divisor: num_frames % frames_divisor must be frames_remainder.
        frames_remainder: see frames_divisor.
        size_multiple: height and width are multiples of it, in pixels.
        fps: frames per second that the model was trained on.
        least_size: height and width are at least so many pixels.
        least_frames: num_frames is at least so many.
    """

    frames_divisor: int
    frames_remainder: int
    size_multiple: int
    fps: float
    least_size: int = 1
    least_frames: int = 1

    def check(self, *, height: int, width: int, num_frames: int, where: str = "") -> None:
        """Check a clip's size.

        Args:
            where: how the error names what has the size.

        Raises:
            DataError: for each of height, width and num_frames that does not fit, with the nearest values that do.
        """
        problems = [
            Problem(
                f"{name} is {value}",
                where,
                allowed=f"positive multiples of {self.size_multiple}"
                + (f" from {self.least_size} on" if self.least_size > self.size_multiple else "")
                + (f" up to {limits.PIXELS}" if value > limits.PIXELS else ""),
                fix=self._use(max(value, self.least_size), self.size_multiple, 0, limits.PIXELS),
            )
            for name, value in (("height", height), ("width", width))
            if not self.least_size <= value <= limits.PIXELS or value % self.size_multiple
        ]
        if (
            not self.least_frames <= num_frames <= limits.FRAMES
            or num_frames % self.frames_divisor != self.frames_remainder % self.frames_divisor
        ):
            fix = self._use(
                max(num_frames, self.least_frames), self.frames_divisor, self.frames_remainder, limits.FRAMES
            )
            allowed = f"multiples of {self.frames_divisor} plus {self.frames_remainder}"
            allowed += f" from {self.least_frames} on" if self.least_frames > 1 else ""
            allowed += f" up to {limits.FRAMES}" if num_frames > limits.FRAMES else ""
            problems.append(Problem(f"num_frames is {num_frames}", where, allowed=allowed, fix=fix))
        if problems:
            raise DataError(problems)

    @staticmethod
    def _use(value: int, multiple: int, remainder: int, most: int) -> str:
        if value > most:
            return ""
        below = (value - remainder) // multiple * multiple + remainder
        near = [n for n in (below, below + multiple) if n > 0] or [remainder or multiple]
        return f"use {' or '.join(map(str, near))}"


@dataclass(frozen=True)
class VideoSize:
    """The size of a video: pixels and frames."""

    height: int
    width: int
    num_frames: int

    def of_run(self, training: TrainingArgs) -> VideoSize:
        """The run's sizes; these where it names none."""
        given = {"height": training.num_height, "width": training.num_width, "num_frames": training.num_frames}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def data_free_size(training: TrainingArgs, *, size_multiple: int, temporal_factor: int) -> VideoSize:
    """The size of the videos that a run trains on without data latents, as it names it.

    Args:
        size_multiple: pixels that height and width are multiples of.
        temporal_factor: video frames per latent frame f; videos have f k + 1 frames.

    Raises:
        ConfigError: the sizes of the run are missing or contradict each other; all of them at once.
    """
    height, width, frames = training.num_height, training.num_width, training.num_frames
    latent_frames = training.num_latent_t
    problems = []
    for name, value in (("num_height", height), ("num_width", width)):
        if value is None:
            found = "training without data latents needs a size"
            problems.append(Problem(found, f"training.{name}", fix=f"set training.{name} in pixels"))
        elif value % size_multiple:
            problems.append(Problem(f"is {value}", f"training.{name}", allowed=f"multiples of {size_multiple} pixels"))
    if frames is not None and frames % temporal_factor != 1:
        allowed = f"multiples of {temporal_factor} plus 1"
        problems.append(Problem(f"is {frames}", "training.num_frames", allowed=allowed))
    elif frames is None and latent_frames is None:
        found = "training without data latents needs a length"
        problems.append(Problem(found, "training.num_frames", fix="set training.num_frames"))
    elif frames is not None and latent_frames not in (None, (frames - 1) // temporal_factor + 1):
        problems.append(
            Problem(
                f"{frames} frames are {(frames - 1) // temporal_factor + 1} latent frames, not {latent_frames}",
                "training.num_frames",
                fix="give training.num_latent_t and training.num_frames the same length, or only one of them",
            )
        )
    if problems:
        raise ConfigError(problems)
    if latent_frames is not None:
        frames = (latent_frames - 1) * temporal_factor + 1
    assert height is not None
    assert width is not None
    assert frames is not None
    return VideoSize(height, width, frames)
