from __future__ import annotations

import math

import numpy as np
import pytest

from fastvideo_tools.distances import energy_distance, sliced_wasserstein


def test_sliced_wasserstein_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = 1.5 * rng.standard_normal((20000, 3)) + [0.6, 0.0, -0.8]
    b = rng.standard_normal((15000, 3))
    assert sliced_wasserstein(a, b) == pytest.approx(math.sqrt(1 / 3 + 0.25), rel=0.04)
    assert sliced_wasserstein(b, a) == sliced_wasserstein(a, b)


def test_sliced_wasserstein_of_a_set_and_itself_is_0():
    points = np.random.default_rng(0).standard_normal((50, 4))
    assert sliced_wasserstein(points, points[::-1]) == 0.0


def test_energy_distance_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    found = [energy_distance(rng.standard_normal((200, 1)) + 1, rng.standard_normal((100, 1))) for _ in range(300)]
    apart = 2 / math.sqrt(math.pi) * math.exp(-0.25) + math.erf(0.5)  # E|N(1, 2)|
    assert np.mean(found) == pytest.approx(2 * apart - 4 / math.sqrt(math.pi), abs=0.03)


def test_energy_distance_has_no_bias_even_for_few_points():
    rng = np.random.default_rng(0)
    found = [energy_distance(rng.standard_normal((3, 5)), rng.standard_normal((8, 5))) for _ in range(2000)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))
