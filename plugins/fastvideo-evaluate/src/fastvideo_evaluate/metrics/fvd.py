"""The Frechet video distance, by the package cd-fvd."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import torch

from fastvideo_core.errors import DataError, Problem
from fastvideo_evaluate.metrics import optional
from fastvideo_evaluate.metrics.contract import Floats, Sample, SetMetric

FILE = "i3d_pretrained_400.pt"
NEEDS = f"the I3D network's weights, {FILE}, as cd-fvd reads them"
GET = f"download https://github.com/songweige/TATS/raw/main/tats/fvd/{FILE}"
LEAST_FRAMES = 9
"""Fewer are too short for I3D's last pooling."""


class FrechetVideoDistance(SetMetric):
    """The Frechet distance between I3D's features of all videos and of the teacher's (Unterthiner et al. 2018), by cd-fvd.

    It needs many videos: with fewer than I3D's 400 features it mostly measures how few there are.
    """

    unit, better = "squared features", "lower"

    def __init__(self, *, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights=weights, device=device)
        module = optional.package("fvd", "cdfvd.fvd", "cd-fvd")
        self._statistics = optional.package("fvd", "cdfvd.utils.metric_utils", "cd-fvd").FeatureStats
        path = optional.weights("fvd", weights, NEEDS, GET, FILE)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                self._evaluator = module.cdfvd("i3d", ckpt_path=str(path), device=device)
        except Exception as error:
            raise optional.unreadable("fvd", weights, NEEDS, GET, error) from error

    def features(self, video: Sample) -> Floats:
        if len(video.frames) < LEAST_FRAMES:
            raise DataError(
                Problem(f"fvd needs videos of {LEAST_FRAMES} frames or more, these have {len(video.frames)}")
            )
        one, asked = self._statistics(capture_all=True), self._evaluator
        asked.feature_fn(one, asked.model, video.frames[None], device=self.device, model_dtype=torch.float32)
        points: Floats = one.get_all()[0]
        return points

    def distance(self, points: Floats, teacher: Floats) -> float:
        both = [self._statistics(capture_mean_cov=True) for _ in range(2)]
        for statistics, one in zip(both, (points, teacher), strict=True):
            statistics.append(np.asarray(one))
        return float(self._evaluator.compute_fvd_from_stats(*both))
