"""The metrics that compare with the teacher: all videos with all, a prompt's with that prompt's, and pairs of one seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvideo_evaluate.measures import points
from fastvideo_evaluate.measures.points import energy_of_seeds
from fastvideo_evaluate.metrics.contract import Floats, PairMetric, PromptSetMetric, Sample, SetMetric
from fastvideo_tools.distances import energy_distance, sliced_wasserstein


def latents_of(video: Sample) -> NDArray[Any]:
    """Its latents; a metric that says `reads = "latents"` is given them."""
    if video.latents is None:
        raise ValueError(f"the latents of {video.prompt!r}, seed {video.seed}, were not kept")
    return video.latents


class FrameWasserstein(SetMetric):
    """The sliced Wasserstein distance between the points of decoded frames; 0.1 where all pixels are 0.1 off."""

    unit, better = "0 to 1", "lower"

    def features(self, video: Sample) -> Floats:
        return points.of_frames(video.frames)

    def distance(self, points: Floats, teacher: Floats) -> float:
        return sliced_wasserstein(points.astype(np.float64), teacher.astype(np.float64))


class FrameEnergy(FrameWasserstein):
    """The energy distance between the points of decoded frames, in root mean squares over pixels; about 0 of alike sets."""

    def distance(self, points: Floats, teacher: Floats) -> float:
        return energy_distance(points.astype(np.float64), teacher.astype(np.float64)) / math.sqrt(points.shape[1])


class LatentWasserstein(FrameWasserstein):
    """The sliced Wasserstein distance between latents; 0.1 where all are 0.1 off."""

    unit, reads = "latents", "latents"

    def features(self, video: Sample) -> Floats:
        return points.of_latents(latents_of(video))


class LatentEnergy(LatentWasserstein):
    """The energy distance between latents, in root mean squares over their values; about 0 of sets that are alike."""

    distance = FrameEnergy.distance


class FramePromptEnergy(PromptSetMetric):
    """The energy distance between decoded frames of one prompt; about 0 where a model makes of it what its teacher makes."""

    unit, better = "0 to 1", "lower"

    def features(self, video: Sample) -> Floats:
        return points.of_frames(video.frames)

    def distance(self, points: Floats, teacher: Floats) -> float:
        return energy_of_seeds(points, teacher) / math.sqrt(teacher.shape[1])


class LatentPromptEnergy(FramePromptEnergy):
    """The energy distance between latents of one prompt, which hold all that the frames show."""

    unit, reads = "latents", "latents"

    def features(self, video: Sample) -> Floats:
        return points.of_latents(latents_of(video))


class PairedFrames(PairMetric):
    """The root mean square difference from the teacher's video, where a method teaches to make the same of the same noise."""

    unit, better = "0 to 1", "lower"

    def measure(self, video: Sample, teacher: Sample) -> float:
        return points.root_mean_square(video.frames, teacher.frames) / 255


class PairedLatents(PairMetric):
    """The root mean square difference from the teacher's latents, where a method teaches to make the same of the same noise."""

    unit, better, reads = "latents", "lower", "latents"

    def measure(self, video: Sample, teacher: Sample) -> float:
        return points.root_mean_square(latents_of(video), latents_of(teacher))
