"""Procedural captioned clips: one coloured shape moving straight over a plain background."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastvideo_core.contracts.demo import ClipSize
from fastvideo_data.video_files import Frames, read_frames, write_video

Floats = npt.NDArray[np.float64]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.80, 0.25),
    "blue": (0.20, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.15),
}
"""Name -> RGB in [0, 1]."""

SHAPES = ("circle", "square", "triangle")
REACH = {"circle": 1.0, "square": 0.89, "triangle": 1.56}
"""How far a shape of radius 1 reaches from its centre."""

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Name -> (x, y) in pixels' directions: y counts downwards."""


@dataclass(frozen=True)
class Content:
    """What a clip shows."""

    colour: str
    shape: str
    direction: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moves {self.direction}"


CONTENTS = tuple(Content(*names) for names in itertools.product(COLOURS, SHAPES, DIRECTIONS))
"""All 48 classes."""

FEW = tuple(Content(*names) for names in itertools.product(("red", "blue"), ("circle", "square"), ("left", "right")))
"""Eight of them, which a small network learns in a minute."""


def render(content: Content, size: ClipSize, rng: np.random.Generator) -> Frames:
    """One clip, uint8 RGB [T, H, W, 3]: position, extent, speed and background are drawn from `rng`."""
    unit = min(size.height, size.width) / 32
    radius = unit * rng.uniform(6.0, 7.5)
    travel = unit * rng.uniform(7.0, 9.0)
    background = rng.uniform(0.05, 0.35) + rng.uniform(-0.03, 0.03, 3)
    step = np.array(DIRECTIONS[content.direction], dtype=np.float64)
    room = np.array([size.width, size.height]) / 2 - REACH[content.shape] * radius - unit / 2
    room -= np.abs(step) * travel / 2  # for the middle of the way, to both sides of the picture's
    middle = np.array([size.width, size.height]) / 2 + rng.uniform(-1, 1, 2) * np.maximum(room, 0)
    places = middle + np.linspace(-0.5, 0.5, size.num_frames)[:, None] * travel * step
    cover = np.stack([coverage(content.shape, place, radius, size.height, size.width) for place in places])[..., None]
    picture = (1 - cover) * background + cover * np.array(COLOURS[content.colour])
    frames: Frames = (picture * 255).round().clip(0, 255).astype(np.uint8)
    return frames


def coverage(shape: str, centre: npt.ArrayLike, radius: float, height: int, width: int) -> Floats:
    """How much of each pixel a shape covers, [H, W] in [0, 1], with an edge of one pixel.

    Args:
        shape: one of SHAPES.
        centre: (x, y) of its centroid in pixels.
        radius: of the circle of the same area; the shapes differ in form alone.
    """
    x, y = np.asarray(centre, dtype=np.float64)
    across = np.arange(width) + 0.5 - x
    down = np.arange(height)[:, None] + 0.5 - y
    if shape == "circle":
        outside = np.hypot(across, down) - radius
    elif shape == "square":
        half = radius * np.sqrt(np.pi) / 2
        outside = np.maximum(np.abs(across), np.abs(down)) - half
    elif shape == "triangle":
        inner = radius * np.sqrt(np.pi / np.sqrt(27.0))  # of an equilateral triangle that points up
        sides = [np.cos(a) * across + np.sin(a) * down for a in np.pi * np.array([0.5, 7 / 6, 11 / 6])]
        outside = np.maximum.reduce(sides) - inner
    else:
        raise ValueError(f"there is no shape '{shape}'; allowed: {', '.join(SHAPES)}")
    covered: Floats = np.clip(0.5 - outside, 0.0, 1.0)
    return covered


def balanced(count: int, classes: Sequence[Content] = CONTENTS) -> Sequence[Content]:
    """`count` contents, every class as often as any other up to one."""
    return [classes[i % len(classes)] for i in range(count)]


def write_clips(folder: Path, count: int, size: ClipSize, *, seed: int, classes: Sequence[Content] = CONTENTS) -> None:
    """`count` mp4 files and metadata.csv with their captions; equal arguments give equal files.

    Args:
        folder: created.
        seed: every clip has a random stream of its own from (seed, its number).
    """

    def write(number: int) -> None:
        clip = render(contents[number], size, np.random.default_rng([seed, number]))
        write_video(folder / clip_name(number), clip, size.fps)

    folder.mkdir(parents=True, exist_ok=True)
    contents = balanced(count, classes)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write, range(count)):
            pass
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["video", "caption"])
        rows.writerows([clip_name(number), content.caption] for number, content in enumerate(contents))


def clip_name(number: int) -> str:
    return f"{number:05d}.mp4"


def read_clips(folder: Path, count: int) -> list[Frames]:
    """The first `count` clips that `write_clips` wrote."""
    return [read_frames(folder / clip_name(number)) for number in range(count)]
