"""What a model family offers to preprocessing: the sizes that it accepts and how it encodes videos and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from fastvideo_core.config import limits
from fastvideo_core.errors import DataError, Problem


@dataclass(frozen=True)
class VideoGeometry:
    """The pixel sizes and frame counts that a video autoencoder encodes without loss.

    Args:
        frames_divisor: num_frames % frames_divisor must be frames_remainder.
        frames_remainder: see frames_divisor.
        size_multiple: height and width are multiples of it, in pixels.
        fps: frames per second that the model was trained on.
        least_size: height and width are at least so many pixels.
    """

    frames_divisor: int
    frames_remainder: int
    size_multiple: int
    fps: float
    least_size: int = 1

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
            not 0 < num_frames <= limits.FRAMES
            or num_frames % self.frames_divisor != self.frames_remainder % self.frames_divisor
        ):
            fix = self._use(num_frames, self.frames_divisor, self.frames_remainder, limits.FRAMES)
            allowed = f"multiples of {self.frames_divisor} plus {self.frames_remainder}"
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


@runtime_checkable
class LatentEncoder(Protocol):
    """A family's encoders, as `preprocess` calls them.

    One that reads only so many tokens of a caption says so: see `CutsCaptions`. One that encodes sound is an `AudioEncoder`.
    """

    @property
    def geometry(self) -> VideoGeometry:
        """The clip sizes that encode_videos accepts."""
        ...

    def describe(self) -> dict[str, str]:
        """What identifies the encoding: the model's identity, and latents_normalised as "true" or "false".

        `X_normalised` says so of latents X that are not like the others, and of tensors X that only this family knows.
        It is stored with the data; folders whose description differs are never mixed.
        """
        ...

    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """Encode clips.

        Args:
            frames: uint8 RGB [B, T, H, W, 3].

        Returns:
            per clip, the tensors to store by name: "vae_latent" [C, T', H', W'], and whatever else the family wants to have
            beside it (first-frame latents, image embeddings, trajectory states, ...), under any name of lower-case letters,
            digits and _. All clips have the same ones. Families ask for them by name: see `fastvideo_data.data_set`.
        """
        ...

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Encode captions.

        Returns:
            per caption, its embedding [L, D] without padding.
        """
        ...


@runtime_checkable
class AudioEncoder(Protocol):
    """What a `LatentEncoder` offers besides when its family makes sound: `preprocess` then stores each clip's own sound."""

    @property
    def audio_sample_rate(self) -> int:
        """Samples per second of the waveforms that encode_audio takes."""
        ...

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode the sound of clips.

        Args:
            waveforms: per clip float32 [2, samples] in [-1, 1], exactly as long as the clip.

        Returns:
            per clip, its "audio_latent".
        """
        ...


@dataclass(frozen=True)
class EncoderIdentity:
    """The encoders that a run's own pipeline has, to be compared with those that made its data.

    Args:
        role: whose pipeline it is.
        path: folder or hub id of the pipeline.
        values: what tells the encoders apart, by the keys of `LatentEncoder.describe`: only what the run depends on.
    """

    role: str
    path: str
    values: Mapping[str, str]
