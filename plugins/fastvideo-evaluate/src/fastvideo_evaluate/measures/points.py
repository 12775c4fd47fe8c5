"""Videos and latents as points, so that sets of them can be compared without keeping them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FRAMES = 4
GRID = 8
DIMENSIONS = 4096


def of_frames(frames: NDArray[np.uint8]) -> Floats:
    """The point [D] of a video, uint8 [T, H, W, 3]: FRAMES of its frames, evenly spread, as means over GRID x GRID fields.

    From 0 to 1. Videos of one size have points of one size.
    """
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    fields: Floats = frames[chosen].astype(np.float64) / 255
    for axis in (1, 2):
        size = fields.shape[axis]
        edges = np.linspace(0, size, min(GRID, size), endpoint=False).astype(int)
        counts = np.diff([*edges, size])
        shape = [1, 1, 1, 1]
        shape[axis] = len(edges)
        fields = np.add.reduceat(fields, edges, axis=axis) / counts.reshape(shape)
    return fields.ravel()


def of_latents(latents: NDArray[Any]) -> Floats:
    """The point of one sample's latents, of whatever layout: [D] itself up to DIMENSIONS numbers, else a sketch of so many.

    Each number goes into a random place of the sketch with a random sign, always the same for one size, which keeps distances to
    about sqrt(2 / DIMENSIONS) (Charikar et al. 2002); the sketch is scaled so that its mean square is that of the latents.
    """
    flat: Floats = latents.astype(np.float64).ravel()
    if len(flat) <= DIMENSIONS:
        return flat
    rng = np.random.default_rng(len(flat))
    places, signs = rng.integers(0, DIMENSIONS, len(flat)), rng.choice([-1.0, 1.0], len(flat))
    sketch: Floats = np.bincount(places, signs * flat, DIMENSIONS) * np.sqrt(DIMENSIONS / len(flat))
    return sketch


def energy_of_seeds(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The energy distance between two models' points of one prompt, of which the n-th began as the same noise.

    Only points of different noise are compared, so that all are independent draws: 2 |a_i - b_j| - |a_i - a_j| - |b_i - b_j| in
    the mean over i other than j. Without bias from two seeds on, so that it can fall below 0 by chance; its expectation is 0
    where both distributions are equal, and above 0 elsewhere (Szekely & Rizzo 2013).

    Args:
        a, b: points [N, D], two at least of each.
    """
    apart = ~np.eye(len(a), dtype=bool)
    between, of_a, of_b = (
        np.linalg.norm(one[:, None].astype(np.float64) - other[None], axis=-1)[apart].mean()
        for one, other in ((a, b), (a, a), (b, b))
    )
    return float(2 * between - of_a - of_b)


def root_mean_square(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Of the differences between two arrays of one shape.

    Raises:
        ValueError: their shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"arrays of one shape are compared, not {list(a.shape)} and {list(b.shape)}")
    return float(np.sqrt(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, dtype=np.float64)))
