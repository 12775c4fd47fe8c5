"""What a metric measures: a video, the seeds of a prompt, a video, a prompt or all beside the teacher's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Better = Literal["higher", "lower", "closest to the teacher"]
"""Which of two values is the better one."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Sample:
    """What a model made of a prompt with a seed.

    `frames` is uint8 [T, H, W, 3]. `latents` is float, of one sample, in the family's own layout; None where
    they were not kept.
    """

    prompt: str
    seed: int
    frames: NDArray[np.uint8]
    fps: float
    latents: Floats | None = None


class Metric(ABC):
    """The base of the five kinds of metric; write a subclass of one of these.

    A metric is made once, before anything is sampled. One that needs a package or weights refuses in `__init__` where they are
    not there, by a PluginError that says what to install or where to put them; it never downloads.

    Args:
        weights: the folder (or hub id in the local cache) of the model that the metric asks; "" where the user gave none.
        device: where that model runs, as torch names it.
    """

    unit: ClassVar[str]
    better: ClassVar[Better]
    reads: ClassVar[Literal["frames", "latents"]] = "frames"

    def __init__(self, *, weights: str = "", device: str = "cpu") -> None:
        self.weights, self.device = weights, device


class VideoMetric(Metric):
    """Measures each video by itself."""

    @abstractmethod
    def measure(self, video: Sample) -> float: ...

    def measure_all(self, videos: Sequence[Sample]) -> list[float]:
        """Of several; override it where a tool takes many at once."""
        return [self.measure(video) for video in videos]


class PromptMetric(Metric):
    """Measures the videos of one prompt, two seeds or more, together."""

    @abstractmethod
    def measure(self, videos: Sequence[Sample]) -> float: ...


class PairMetric(Metric):
    """Measures a video beside the teacher's of the same prompt and seed."""

    @abstractmethod
    def measure(self, video: Sample, teacher: Sample) -> float: ...


class SetMetric(Metric):
    """Measures all videos beside all of the teacher's: each becomes a point, so that no video need stay in memory."""

    @abstractmethod
    def features(self, video: Sample) -> Floats:
        """The point [D] of one video."""

    @abstractmethod
    def distance(self, points: Floats, teacher: Floats) -> float:
        """Of points [N, D] and the teacher's [M, D], two at least of each."""


class PromptSetMetric(Metric):
    """Measures the videos of each prompt beside the teacher's of that prompt, two seeds or more; the mean over prompts counts."""

    @abstractmethod
    def features(self, video: Sample) -> Floats:
        """The point [D] of one video."""

    @abstractmethod
    def distance(self, points: Floats, teacher: Floats) -> float:
        """Of points [N, D] and the teacher's [N, D] of one prompt; the n-th of both began as the same noise."""


def penalty(better: Better, value: float, teacher: float) -> float:
    """The smaller, the better: what sorts values of any metric; `teacher` is its value of the teacher, in the same unit."""
    if better == "higher":
        return -value
    return value if better == "lower" else abs(value - teacher)
