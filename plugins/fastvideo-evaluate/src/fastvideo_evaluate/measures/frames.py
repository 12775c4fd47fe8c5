"""What can be measured of one video without a model: light, colour, sharpness, motion and flicker."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fastvideo_evaluate.measures.points import root_mean_square

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
"""Of red, green and blue (ITU-R BT.709), applied to the stored, gamma-coded values."""


def luma(frames: Frames) -> Floats:
    """[T, H, W, 3] in 0..255 to [T, H, W] in 0..1."""
    light: Floats = frames.astype(np.float32) @ (LUMA / np.float32(255))
    return light


def brightness(frames: Frames) -> float:
    """The mean luma, in 0..1: drifts up or down where a student over- or under-exposes."""
    return float(luma(frames).mean(dtype=np.float64))


def contrast(frames: Frames) -> float:
    """The standard deviation of luma within a frame, mean over frames, in 0..0.5: falls where videos turn grey."""
    return float(luma(frames).std(axis=(1, 2), dtype=np.float64).mean())


def saturation(frames: Frames) -> float:
    """The largest minus the smallest of red, green and blue, mean over pixels, in 0..1: 0 of greys, 1 of pure colours."""
    return float((frames.max(axis=-1) - frames.min(axis=-1)).mean(dtype=np.float64)) / 255


def sharpness(frames: Frames) -> float:
    """The root mean square of luma's Laplacian (four neighbours) inside of frames: falls where details blur."""
    y = luma(frames)
    laplacian = 4 * y[:, 1:-1, 1:-1] - y[:, :-2, 1:-1] - y[:, 2:, 1:-1] - y[:, 1:-1, :-2] - y[:, 1:-1, 2:]
    return float(np.sqrt((laplacian**2).mean(dtype=np.float64)))


def motion(frames: Frames) -> float:
    """The mean absolute change of luma from a frame to the next, beside that of the whole frame's light; 0 of one frame.

    Frame differences, no optical flow: twice the speed of an edge is twice the change.
    """
    y = luma(frames)
    light = y.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    y = y - light.astype(np.float32)
    return float(np.abs(np.diff(y, axis=0)).mean(dtype=np.float64)) if len(y) > 1 else 0.0


def flicker(frames: Frames) -> float:
    """How far each frame's mean luma is from the mean of its two neighbours', mean over frames; 0 of a steady change of light."""
    light = luma(frames).mean(axis=(1, 2), dtype=np.float64)
    return float(np.abs(light[1:-1] - (light[:-2] + light[2:]) / 2).mean()) if len(light) > 2 else 0.0


def diversity(videos: list[Frames]) -> float:
    """The root mean square difference between the videos that one prompt gives with several seeds, mean over pairs, in 0..1.

    Raises:
        ValueError: there are fewer than two, or they differ in size.
    """
    if len(videos) < 2 or len({video.shape for video in videos}) > 1:
        raise ValueError(f"diversity is of two or more videos of one size, not {[video.shape for video in videos]}")
    return float(np.mean([root_mean_square(*pair) for pair in combinations(videos, 2)])) / 255
