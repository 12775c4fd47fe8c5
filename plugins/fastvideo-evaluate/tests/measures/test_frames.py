"""Every measure against its closed form, and the direction in which it moves."""

from __future__ import annotations

import numpy as np
import pytest

from fastvideo_evaluate.measures import frames as m


def flat(colour: tuple[int, int, int], frames: int = 5, size: int = 8) -> m.Frames:
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (frames, size, size, 3)).copy()


def edge(speed: int, frames: int = 5, width: int = 32) -> m.Frames:
    """White left of an edge that moves to the right, black beside it."""
    video = np.zeros((frames, 8, width, 3), dtype=np.uint8)
    for t in range(frames):
        video[t, :, : 4 + speed * t] = 255
    return video


def test_light_and_colour_of_known_colours():
    assert m.brightness(flat((255, 255, 255))) == pytest.approx(1)
    assert m.brightness(flat((0, 255, 0))) == pytest.approx(0.7152)
    assert m.brightness(flat((61, 61, 61))) - m.brightness(flat((10, 10, 10))) == pytest.approx(51 / 255)
    assert m.saturation(flat((90, 90, 90))) == 0
    assert m.saturation(flat((255, 0, 0))) == pytest.approx(1)
    assert m.saturation(flat((204, 102, 102))) == pytest.approx(0.4)


def test_contrast_of_halves():
    video = flat((0, 0, 0))
    assert m.contrast(video) == 0
    video[:, :, :4] = 255
    assert m.contrast(video) == pytest.approx(0.5)


def test_sharpness_is_that_of_the_laplacian():
    assert m.sharpness(flat((7, 8, 9))) == pytest.approx(0, abs=1e-6)
    video = flat((0, 0, 0), size=6)
    video[:, 2, 2] = 255  # of 16 inner pixels one has 4, four have -1
    assert m.sharpness(video) == pytest.approx(np.sqrt((16 + 4) / 16))


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_motion_grows_with_the_speed_of_an_edge(speed):
    """Each frame `speed` of 32 columns turn white: the mean of |change| beside that of the light is 2 q (1 - q)."""
    q = speed / 32
    assert m.motion(edge(speed)) == pytest.approx(2 * q * (1 - q))


def test_light_that_changes_is_no_motion_and_only_unsteady_light_flickers():
    steady = np.concatenate([flat((v, v, v), frames=1) for v in (0, 51, 102, 153, 204)])
    assert m.motion(steady) == pytest.approx(0, abs=1e-6)
    assert m.flicker(steady) == pytest.approx(0, abs=1e-6)
    alternating = np.concatenate([flat((v, v, v), frames=1) for v in (0, 51, 0, 51, 0)])
    assert m.flicker(alternating) == pytest.approx(0.2)
    assert m.motion(flat((9, 9, 9), frames=1)) == m.flicker(flat((9, 9, 9), frames=2)) == 0


def test_diversity_of_known_shifts():
    assert m.diversity([flat((10, 10, 10))] * 3) == 0
    assert m.diversity([flat((0, 0, 0)), flat((51, 51, 51)), flat((102, 102, 102))]) == pytest.approx(
        (0.2 + 0.2 + 0.4) / 3
    )
    with pytest.raises(ValueError, match="two or more"):
        m.diversity([flat((0, 0, 0))])


def test_a_collapse_moves_every_measure_in_its_direction():
    """Saturated, blown out, static: what users see of a collapsed student."""
    generator = np.random.default_rng(0)
    good = generator.integers(60, 190, (6, 16, 16, 3)).astype(np.uint8)
    static = np.repeat(good[:1], 6, axis=0)
    assert m.motion(static) == 0 < m.motion(good)
    blown = np.clip(good.astype(int) * 2 + 40, 0, 255).astype(np.uint8)
    assert m.brightness(blown) > m.brightness(good)
    blurred = (good.astype(float) + np.roll(good, 1, 1) + np.roll(good, 1, 2) + np.roll(good, -1, 1)) / 4
    assert m.sharpness(blurred.astype(np.uint8)) < m.sharpness(good)
