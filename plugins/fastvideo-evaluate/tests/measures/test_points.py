"""Points keep what distances need: means, differences, sizes that do not divide, latents of any layout."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastvideo_evaluate.measures import points


def test_a_plain_video_is_a_point_of_its_colour():
    frames = np.full((9, 30, 21, 3), (255, 51, 0), dtype=np.uint8)
    found = points.of_frames(frames).reshape(points.FRAMES, 8, 8, 3)
    assert found == pytest.approx(np.broadcast_to([1.0, 0.2, 0.0], found.shape))


def test_fields_are_means_in_their_places_and_frames_are_spread():
    frames = np.zeros((7, 32, 32, 3), dtype=np.uint8)
    frames[2, 8:10, 12:16, 1] = 255
    found = points.of_frames(frames).reshape(4, 8, 8, 3)  # of frames 0, 2, 4 and 6
    assert found[1, 2, 3, 1] == pytest.approx(0.5)
    assert found.sum() == pytest.approx(0.5)
    assert points.of_frames(frames[:2, :5, :5]).shape == (2 * 5 * 5 * 3,)


def test_small_latents_are_their_own_point_and_large_ones_keep_distances():
    rng = np.random.default_rng(0)
    small = rng.standard_normal((4, 2, 3, 3))
    assert np.array_equal(points.of_latents(small), small.ravel())
    a, b = rng.standard_normal((2, 16, 5, 30, 52))
    sketched = points.of_latents(a) - points.of_latents(b + 1)
    assert sketched.shape == (points.DIMENSIONS,)
    assert np.sqrt((sketched**2).mean()) == pytest.approx(points.root_mean_square(a, b + 1), rel=0.05)
    assert np.array_equal(points.of_latents(a), points.of_latents(a.reshape(5, -1)))


def test_the_energy_of_seeds_is_the_closed_form_and_has_no_noise_in_common():
    """In D dimensions points of N(d, I) and N(0, I) are sqrt(D (2 + d^2)) apart, within each sqrt(2 D)."""
    rng = np.random.default_rng(0)
    noise, others = rng.standard_normal((2, 12, 4000))
    expected = 2 * (math.sqrt(2.49) - math.sqrt(2))
    for a in (noise, others):  # as one began as the same noise, or not
        assert points.energy_of_seeds(a + 0.7, noise) / math.sqrt(4000) == pytest.approx(expected, rel=0.05)
    assert points.energy_of_seeds(noise, noise) == 0
    of_one_video = points.energy_of_seeds(others[:1].repeat(12, axis=0), noise)
    assert of_one_video / math.sqrt(4000) == pytest.approx(math.sqrt(2), rel=0.05)


def test_the_energy_of_two_seeds_is_without_bias():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000, 2, 1))
    b = 0.8 * a + 0.6 * b  # of one distribution, and alike where the noise is
    found = np.array([points.energy_of_seeds(*two) for two in zip(a, b, strict=True)])
    assert abs(found.mean()) < 3 * found.std() / math.sqrt(len(found))


def test_differences_are_of_one_shape():
    assert points.root_mean_square(np.zeros((2, 3), np.uint8), np.full((2, 3), 200, np.uint8)) == 200
    with pytest.raises(ValueError, match=r"not \[2\] and \[3\]"):
        points.root_mean_square(np.zeros(2), np.zeros(3))
