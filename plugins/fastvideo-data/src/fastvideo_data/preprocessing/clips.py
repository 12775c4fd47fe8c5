"""A video cut into clips: which frames and which sound go into each, in which size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.encoder import AudioEncoder, LatentEncoder
from fastvideo_data.images import is_image
from fastvideo_data.preprocessing.audio import SoundTrack, Waveform
from fastvideo_data.preprocessing.buckets import Buckets
from fastvideo_data.preprocessing.masks import mask_frames, next_frames
from fastvideo_data.video_files import Frames, iter_frames, picture_size, probe


@dataclass(frozen=True)
class PreprocessOptions:
    """How videos become clips: all of one size (height, width, num_frames), or each of the size that fits it (buckets).

    Args:
        height: clip height in pixels; videos are scaled to cover height x width and cropped around the centre.
        width: clip width in pixels.
        num_frames: pixel frames of a clip.
        fps_policy: "resample" brings every video to `fps`; "keep" takes its frames as they are.
        fps: frames per second for "resample"; None for the model's own. None with "keep".
        clips: "first" takes one clip from each video's start; "all" cuts it into consecutive, disjoint clips.
        samples_per_file: samples in a part file; a kill loses at most that many (of each bucket).
        batch_size: clips of one size, or prompts, that are encoded together.
        prune: take samples of what the source no longer lists out of the data set, and take it that all clips changed.
        buckets: the sizes to choose from, in place of height, width and num_frames.
    """

    height: int = 0
    width: int = 0
    num_frames: int = 0
    fps_policy: Literal["resample", "keep"] = "resample"
    fps: float | None = None
    clips: Literal["first", "all"] = "first"
    samples_per_file: int = 32
    batch_size: int = 1
    prune: bool = False
    buckets: Buckets | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """The frame counts that clips may have, from the shortest to the longest."""
        return (self.num_frames,) if self.buckets is None else self.buckets.frames

    @property
    def takes_images(self) -> bool:
        """Whether there are clips of one frame, which images are."""
        return 1 in self.lengths


@dataclass(frozen=True)
class Clip:
    """Frames uint8 [T, H, W, 3], their sound where the family makes some and the file has any, and their mask, as they are."""

    frames: Frames
    sound: Waveform | None
    mask: Frames | None = None


class VideoClips:
    """The clips of a video, or of an image, in order; read while they are iterated over.

    With buckets a clip has the most frames that the rest of the video gives. The end of a video that gave clips already is
    not cut into single frames.

    Args:
        video: the file.
        encoder: of the family; says the frame rate and which sizes there are, and whether sound is wanted.
        options: of the call.
        mask: the file that says where the loss counts; None for everywhere.

    Attributes:
        fps: frames per second of the clips; 0.0 of an image.
        height: of the clips.
        width: of the clips.
        unused: frames after the last clip; all where there is none.

    Raises:
        DataError: the file cannot be read, or does not say its frame rate.
    """

    def __init__(
        self, video: Path, encoder: LatentEncoder, options: PreprocessOptions, mask: Path | None = None
    ) -> None:
        self._video = video
        self._mask = mask
        self._masks: Iterator[Frames] = iter(())
        self._encoder = encoder
        self._options = options
        self._image = is_image(video)
        self._rest: list[Frames] = []
        self._used = 0
        self.fps = 0.0 if self._image else self._rate()
        self.height, self.width = options.height, options.width
        if options.buckets is not None:
            self.height, self.width = options.buckets.size_for(picture_size(video), encoder.geometry)

    @property
    def unused(self) -> int:
        """See the class."""
        return len(self._rest)

    def __iter__(self) -> Iterator[Clip]:
        with ExitStack() as stack:
            track = self._sound(stack)
            resampled = self.fps if self.fps and self._options.fps_policy == "resample" else None
            if self._mask is not None:
                self._masks = mask_frames(self._mask, self._video, height=self.height, width=self.width, fps=resampled)
            frames = iter_frames(self._video, height=self.height, width=self.width, fps=resampled)
            for frame in itertools.islice(frames, 1) if self._image else frames:
                self._rest.append(frame)
                if len(self._rest) == self._options.lengths[-1]:
                    yield self._clip(len(self._rest), track)
                    if self._options.clips == "first":
                        return
            while length := self._longest():
                yield self._clip(length, track)
                if self._options.clips == "first":
                    self._rest = []
                    return

    def too_short(self) -> str:
        """What this video lacks, which gave no clip, and what would take it."""
        needed = self._options.lengths[0]
        lacks, own = f"too short: {self.unused} frames, but a clip needs {needed}", probe(self._video)
        name = "--num-frames" if self._options.buckets is None else "--frames"
        if self._options.fps_policy == "keep" or abs(own.fps - self.fps) < 0.01 * self.fps:
            return f"{lacks} ({name})"
        keep = "--fps-policy keep takes it as it is, or " if own.frames >= needed else ""
        resampled = f"its {own.frames} frames at {own.fps:g} fps were resampled to {self.fps:g} fps"
        return f"{lacks}: {resampled}; {keep}lower {name}"

    def _longest(self) -> int:
        """Frames of the next clip at the end of the video; 0 where there is none."""
        least = 2 if self._used else 1
        return max((length for length in self._options.lengths if least <= length <= len(self._rest)), default=0)

    def _clip(self, length: int, track: SoundTrack | None) -> Clip:
        taken, self._rest = self._rest[:length], self._rest[length:]
        sound = None
        if track is not None and (length > 1 or self._options.buckets is None):
            sound = track.read(self._used / self.fps, length / self.fps)
        self._used += length
        mask = None if self._mask is None else next_frames(self._masks, length, self._mask)
        return Clip(np.stack(taken), sound, mask)

    def _sound(self, stack: ExitStack) -> SoundTrack | None:
        """The sound of the video, when it has any and the family makes some; closed with `stack`."""
        if not isinstance(self._encoder, AudioEncoder) or self._image or not probe(self._video).has_audio:
            return None
        return stack.enter_context(SoundTrack(self._video, self._encoder.audio_sample_rate))

    def _rate(self) -> float:
        if self._options.fps_policy == "resample":
            return self._encoder.geometry.fps if self._options.fps is None else self._options.fps
        fps = probe(self._video).fps
        if not fps:
            raise DataError(Problem("the file does not say its frame rate", str(self._video)))
        return fps
