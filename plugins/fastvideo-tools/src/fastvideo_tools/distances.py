"""How far two sets of points are from each other, as samples of distributions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DIRECTIONS = 256


def sliced_wasserstein(a: Floats, b: Floats, *, seed: int = 0) -> float:
    """Root of the mean over random directions of the squared 2-Wasserstein distance between projections.

    For Gaussians N(m, s^2 I) and N(0, r^2 I) in D dimensions it is sqrt(|m|^2 / D + (s - r)^2) (Rabin et al. 2011; Bonneel et
    al. 2015).

    Args:
        a, b: points [N, D] and [M, D].
        seed: of the directions.
    """
    directions = _directions(a.shape[1], seed)
    count = max(len(a), len(b))
    levels = (np.arange(count) + 0.5) / count
    apart = _quantiles(a @ directions, levels) - _quantiles(b @ directions, levels)
    return float(np.sqrt((apart**2).mean()))


@lru_cache(maxsize=2)
def _directions(dimensions: int, seed: int) -> Floats:
    """Unit vectors as columns; kept, as many distances are taken along the same ones."""
    directions = np.random.default_rng(seed).standard_normal((dimensions, DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    return directions


def _quantiles(values: Floats, levels: Floats) -> Floats:
    """Of each column, [levels, columns]; sorted values sit in the middle of equal parts of the probability."""
    ordered = np.sort(values, axis=0)
    at = (np.arange(len(ordered)) + 0.5) / len(ordered)
    return np.stack([np.interp(levels, at, column) for column in ordered.T], axis=1)


def energy_distance(a: Floats, b: Floats) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, without bias, so that it can fall below 0 by chance (Szekely & Rizzo 2013).

    Args:
        a, b: points [N, D] and [M, D], two at least of each.
    """
    within = sum(_distances(one, one).sum() / (len(one) * (len(one) - 1)) for one in (a, b))
    return float(2 * _distances(a, b).mean() - within)


def _distances(a: Floats, b: Floats) -> Floats:
    """|a_i - b_j|, [N, M]."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if a is b:
        np.fill_diagonal(squares, 0.0)
    distances: Floats = np.sqrt(np.maximum(squares, 0.0))
    return distances
