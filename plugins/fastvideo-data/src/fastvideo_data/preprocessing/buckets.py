"""Sizes of clips after the videos that they come from: areas, aspect ratios and frame counts, as `preprocess` is told them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.video_sizes import ENLARGED, VideoGeometry

_FOLDER = re.compile(r"\d+x\d+x\d+")
_MOST_ASPECTS = 100
_WIDEST = 16.0


@dataclass(frozen=True)
class Buckets:
    """The sizes that clips may have: every area in every aspect ratio, with every number of frames.

    Args:
        areas: pixels of a frame.
        aspects: width / height.
        frames: pixel frames of a clip.
    """

    areas: tuple[int, ...]
    aspects: tuple[float, ...]
    frames: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("areas", "aspects", "frames"):  # in whatever order they are named, the data set is the same
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def check(self, geometry: VideoGeometry) -> None:
        """Check all sizes.

        Raises:
            DataError: for each that the model cannot encode, or where there is none.
        """
        problems = []
        for name, values in (("areas", self.areas), ("aspects", self.aspects), ("frames", self.frames)):
            if not values or min(values) <= 0:
                problems.append(Problem(f"{name} are {list(values)}", allowed="at least one number, all above 0"))
        if problems:
            raise DataError(problems)
        sizes = dict.fromkeys(size_of(area, aspect, geometry) for area in self.areas for aspect in self.aspects)
        least = max(geometry.frames_remainder or geometry.frames_divisor, geometry.least_frames)
        tried = [(*size, least, "a bucket") for size in sizes] + [
            (*next(iter(sizes)), f, "--frames") for f in self.frames
        ]
        for height, width, frames, where in tried:
            try:
                geometry.check(height=height, width=width, num_frames=frames, where=where)
            except DataError as error:
                problems += [one for one in error.problems if one not in problems]
        if problems:
            raise DataError(problems)

    def size_for(self, picture: tuple[float, float], geometry: VideoGeometry) -> tuple[int, int]:
        """Height and width of clips of a picture with this height and width.

        The aspect ratio is the nearest one, the area the largest that enlarges the picture by no more than ENLARGED along a
        side; the smallest where all do.
        """
        height, width = picture
        aspect = min(self.aspects, key=lambda one: abs(math.log(one * height / width)))
        sizes = [size_of(area, aspect, geometry) for area in self.areas]
        kept = [size for size in sizes if max(size[0] / height, size[1] / width) <= ENLARGED]
        return kept[-1] if kept else sizes[0]


def size_of(area: float, aspect: float, geometry: VideoGeometry) -> tuple[int, int]:
    """Height and width of about so many pixels with width / height of about `aspect`, as multiples that the model encodes."""
    multiple = geometry.size_multiple
    height, width = (
        max(round(math.sqrt(pixels) / multiple), 1) * multiple for pixels in (area / aspect, area * aspect)
    )
    return height, width


def bucket_name(height: int, width: int, frames: int) -> str:
    """The folder of clips of one size."""
    return f"{height}x{width}x{frames}"


def is_bucket_name(name: str) -> bool:
    """Whether a folder's name is that of a bucket."""
    return _FOLDER.fullmatch(name) is not None


def parse_area(text: str) -> int:
    """Pixels of an area as "480x832" names it; ValueError for other texts."""
    height, width = (int(side) for side in text.lower().split("x"))
    return _positive(height) * _positive(width)


def parse_aspects(text: str) -> tuple[float, ...]:
    """Width / height of each ratio that "16:9,1:1,9:16" or "0.5:2:7" (from, to, how many) names; ValueError for other texts."""
    found = [part for one in text.split(",") for part in _aspects(one)]
    if len(found) > _MOST_ASPECTS or not all(1 / _WIDEST <= aspect <= _WIDEST for aspect in found):
        raise ValueError(text)
    return tuple(round(aspect, 6) for aspect in found)  # the same numbers on every machine: they are stored


def parse_frames(text: str) -> tuple[int, ...]:
    """The frame counts that "1,33,81" names; ValueError for other texts."""
    return tuple(_positive(int(one)) for one in text.split(","))


def _aspects(text: str) -> Iterable[float]:
    numbers = [float(part) for part in text.split(":")]
    if len(numbers) == 1:
        return numbers
    if len(numbers) == 2:
        return [numbers[0] / numbers[1]] if numbers[1] else []
    low, high, count = numbers[0], numbers[1], int(text.split(":")[2])
    if len(numbers) > 3 or not 2 <= count <= _MOST_ASPECTS or not 0 < low < high:
        raise ValueError(text)
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(number)
    return number
