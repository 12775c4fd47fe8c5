"""What generated clips are worth: whether their pixels show what the caption says, and how far they are from the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastvideo_data.video_files import Frames
from fastvideo_tools.demo.clips import COLOURS, DIRECTIONS, SHAPES, Content, Floats, coverage
from fastvideo_tools.distances import energy_distance

LEAST_MASK = 0.3
LEAST_AREA = 0.01
LEAST_TRAVEL = 2 / 32
BACKGROUND_WEIGHT = 16.0


@dataclass(frozen=True)
class Seen:
    """What the pixels of a clip show; None where nothing can be told."""

    colour: str | None
    shape: str | None
    direction: str | None


def look(frames: Frames) -> Seen:
    """Reads colour, shape and direction from a clip, uint8 [T, H, W, 3].

    The background is the median pixel. The colour is the one whose mixture with the background explains the pixels best, in
    the sense of least squares; the shape the one that overlaps most with what is mixed in, at the same centroid and area; the
    direction that of the centroid from the first third of the clip to the last.
    """
    pixels = frames.astype(np.float64) / 255
    height, width = pixels.shape[1:3]
    background = np.median(pixels.reshape(-1, 3), axis=0)
    difference = pixels - background
    colour, mask = _best_colour(difference, background)
    mask = np.where(mask < LEAST_MASK, 0.0, mask)
    areas = mask.sum(axis=(1, 2))
    if areas.min() < LEAST_AREA * height * width:
        return Seen(None, None, None)
    x = (mask.sum(axis=1) * (np.arange(width) + 0.5)).sum(axis=1) / areas
    y = (mask.sum(axis=2) * (np.arange(height) + 0.5)).sum(axis=1) / areas
    return Seen(colour, _best_shape(mask, areas, x, y), _direction(x, y, LEAST_TRAVEL * min(height, width)))


def _best_colour(difference: Floats, background: Floats) -> tuple[str, Floats]:
    found: list[tuple[float, str, Floats]] = []
    for name, colour in COLOURS.items():
        towards = np.array(colour) - background
        share = np.clip(difference @ towards / (towards @ towards), 0, 1)
        unexplained = float(((difference - share[..., None] * towards) ** 2).sum())
        found.append((unexplained, name, share))
    _, name, share = min(found, key=lambda one: one[0])
    return name, share


def _best_shape(mask: Floats, areas: Floats, x: Floats, y: Floats) -> str:
    height, width = mask.shape[1:]
    radii = np.sqrt(areas / np.pi)

    def overlap(shape: str) -> float:
        drawn = [coverage(shape, place, radius, height, width) for *place, radius in zip(x, y, radii, strict=True)]
        together = np.stack(drawn)
        return float((np.minimum(mask, together).sum((1, 2)) / np.maximum(mask, together).sum((1, 2))).mean())

    return max(SHAPES, key=overlap)


def _direction(x: Floats, y: Floats, least: float) -> str | None:
    third = max(1, len(x) // 3)
    moved = np.array([x[-third:].mean() - x[:third].mean(), y[-third:].mean() - y[:third].mean()])
    if np.abs(moved).max() < least:
        return None
    return max(DIRECTIONS, key=lambda name: float(moved @ np.array(DIRECTIONS[name])))


@dataclass(frozen=True)
class Accuracy:
    """Fractions of clips in [0, 1] whose pixels show the caption's colour, shape, direction, and all three."""

    colour: float
    shape: float
    direction: float
    caption: float


def accuracy(clips: Sequence[Frames], contents: Sequence[Content]) -> Accuracy:
    """How often clips show what they were asked for."""
    right = np.array(
        [
            (seen.colour == asked.colour, seen.shape == asked.shape, seen.direction == asked.direction)
            for seen, asked in zip(map(look, clips), contents, strict=True)
        ]
    )
    colour, shape, direction = right.mean(axis=0).tolist()
    return Accuracy(colour, shape, direction, float(right.all(axis=1).mean()))


def features(clips: Sequence[Frames]) -> Floats:
    """Clips as points [N, D]: what the first, middle and last frame show beside the background, and the background.

    The background is the median pixel; the rest are means over squares of 2 x 2 pixels. The background counts as much as
    BACKGROUND_WEIGHT squares: at every pixel it would drown the small thing that moves.
    """
    return np.stack([_feature(clip) for clip in clips])


def _feature(clip: Frames) -> Floats:
    pixels = clip.astype(np.float64) / 255
    background = np.median(pixels.reshape(-1, 3), axis=0)
    shown = pixels[[0, len(pixels) // 2, -1]] - background
    frames, height, width, channels = shown.shape
    squares = shown.reshape(frames, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    return np.concatenate([squares.ravel(), np.sqrt(BACKGROUND_WEIGHT) * background])


def class_energy_distance(a: Floats, classes_a: Sequence[Content], b: Floats, classes_b: Sequence[Content]) -> float:
    """Mean over the classes of `a` of the energy distance between the points of that class.

    Raises:
        ValueError: a class has fewer than two points in one of the two.
    """
    of_a, of_b = _by_class(classes_a), _by_class(classes_b)
    for content, members in of_a.items():
        if min(len(members), len(of_b[content])) < 2:
            raise ValueError(f"'{content.caption}' has fewer than two clips")
    return float(np.mean([energy_distance(a[members], b[of_b[content]]) for content, members in of_a.items()]))


def _by_class(contents: Sequence[Content]) -> dict[Content, list[int]]:
    members: dict[Content, list[int]] = defaultdict(list)
    for index, content in enumerate(contents):
        members[content].append(index)
    return members
