from __future__ import annotations

import numpy as np
import pytest

from fastvideo_core.contracts.demo import ClipSize
from fastvideo_tools.demo.clips import CONTENTS, Content, balanced, render
from fastvideo_tools.demo.measures import (
    Seen,
    accuracy,
    class_energy_distance,
    features,
    look,
)

SIZE = ClipSize(height=32, width=32, num_frames=9, fps=16.0)


def drawn(count: int, seed: int = 0) -> list[np.ndarray]:
    return [render(content, SIZE, np.random.default_rng([seed, n])) for n, content in enumerate(balanced(count))]


def test_every_drawn_clip_is_read_as_what_it_shows():
    assert accuracy(drawn(192), balanced(192)).caption == 1.0


def test_attributes_are_read_apart_from_each_other():
    clips = drawn(48)
    wrong_colour = [Content({"red": "blue"}.get(c.colour, "red"), c.shape, c.direction) for c in CONTENTS]
    found = accuracy(clips, wrong_colour)
    assert (found.colour, found.shape, found.direction, found.caption) == (0.0, 1.0, 1.0, 0.0)
    turned = [clip[::-1] for clip in clips]
    assert accuracy(turned, CONTENTS).direction == 0.0
    assert accuracy(turned, CONTENTS).shape == 1.0


def test_what_shows_nothing_is_not_recognised():
    plain = np.full((9, 32, 32, 3), 60, dtype=np.uint8)
    assert look(plain) == Seen(None, None, None)


def test_a_shape_that_rests_has_no_direction():
    clip = drawn(1)[0]
    assert look(np.repeat(clip[:1], 9, axis=0)) == Seen("red", "circle", None)


def test_noise_is_recognised_by_chance_at_most():
    noise = list(np.random.default_rng(0).integers(0, 255, (96, 9, 32, 32, 3), dtype=np.uint8))
    assert accuracy(noise, balanced(96)).caption < 0.1


def test_the_class_distance_sees_swapped_captions_and_the_unconditional_one_does_not():
    clips, contents = drawn(480), balanced(480)
    points = features(clips)
    fresh, asked = features(drawn(96, seed=1)), balanced(96)
    swapped = [Content({"red": "blue", "blue": "red"}.get(c.colour, c.colour), c.shape, c.direction) for c in asked]
    right, wrong = (class_energy_distance(fresh, kinds, points, contents) for kinds in (asked, swapped))
    assert wrong > abs(right) + 0.1


def test_a_class_of_one_clip_is_an_error():
    points = np.zeros((1, 2))
    with pytest.raises(ValueError, match="'a red circle moves left' has fewer than two clips"):
        class_energy_distance(points, CONTENTS[:1], points, CONTENTS[:1])
