"""Motion as optical flow, by OpenCV."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastvideo_evaluate.measures.frames import luma
from fastvideo_evaluate.metrics.contract import Sample, VideoMetric
from fastvideo_evaluate.metrics.optional import package


class OpticalFlow(VideoMetric):
    """The mean length of the optical flow from a frame to the next (Farneback 2003), as a share of the frame's diagonal."""

    unit, better = "diagonals per frame", "closest to the teacher"

    def __init__(self, *, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights=weights, device=device)
        self._cv2 = package("optical_flow", "cv2", "'fastvideo-evaluate[flow]'")

    def measure(self, video: Sample) -> float:
        grey = (luma(video.frames) * 255).round().astype(np.uint8)
        lengths = [self._length(before, after) for before, after in pairwise(grey)]
        return float(np.mean(lengths)) / float(np.hypot(*grey.shape[1:])) if lengths else 0.0

    def _length(self, before: np.ndarray, after: np.ndarray) -> float:
        flow = self._cv2.calcOpticalFlowFarneback(
            before, after, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
        )
        return float(np.linalg.norm(flow, axis=-1).mean())
