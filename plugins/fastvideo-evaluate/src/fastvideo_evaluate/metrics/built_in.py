"""The metrics that need no model."""

from __future__ import annotations

from collections.abc import Sequence

from fastvideo_evaluate.measures import frames
from fastvideo_evaluate.metrics.contract import PromptMetric, Sample, VideoMetric


class Brightness(VideoMetric):
    """See `frames.brightness`."""

    unit, better = "0 to 1", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.brightness(video.frames)


class Contrast(VideoMetric):
    """See `frames.contrast`."""

    unit, better = "0 to 0.5", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.contrast(video.frames)


class Saturation(VideoMetric):
    """See `frames.saturation`."""

    unit, better = "0 to 1", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.saturation(video.frames)


class Sharpness(VideoMetric):
    """See `frames.sharpness`."""

    unit, better = "0 to 4.5", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.sharpness(video.frames)


class Motion(VideoMetric):
    """See `frames.motion`."""

    unit, better = "0 to 1 per frame", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.motion(video.frames)


class Flicker(VideoMetric):
    """See `frames.flicker`."""

    unit, better = "0 to 1 per frame", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return frames.flicker(video.frames)


class Diversity(PromptMetric):
    """See `frames.diversity`."""

    unit, better = "0 to 1", "closest to the teacher"

    def measure(self, videos: Sequence[Sample]) -> float:
        return frames.diversity([video.frames for video in videos])
