"""The demo's numbers: every sampler's videos against captions and held-out clips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fastvideo_data.video_files import Frames, read_frames
from fastvideo_tools.demo.clips import balanced, clip_name, read_clips
from fastvideo_tools.demo.measures import Accuracy, accuracy, class_energy_distance, features
from fastvideo_tools.demo.story import Extent, Sampler, sample_path, seconds_per_video
from fastvideo_tools.distances import sliced_wasserstein

HELD_OUT = "held-out"


@dataclass(frozen=True)
class Row:
    """A sampler's measures.

    Args:
        name: of its folder; HELD_OUT is the clips that nothing was trained on.
        title: for people.
        evaluations: of the network for one video; 0 for clips.
        seconds: for one video, decoding and writing included; 0 for clips.
        accuracy: of captions, read from the pixels.
        wasserstein: sliced, to the clips that were trained on, whatever they show; in standard deviations of their pixels.
        energy: energy distance to the clips of the same caption, mean over captions; in the same unit.
    """

    name: str
    title: str
    evaluations: int
    seconds: float
    accuracy: Accuracy
    wasserstein: float
    energy: float


@dataclass(frozen=True)
class Results:
    """All rows, and how long each part of the demo took."""

    rows: tuple[Row, ...]
    spent: Mapping[str, float]

    def row(self, name: str) -> Row:
        """The row of a sampler."""
        return next(row for row in self.rows if row.name == name)


def measure(out: Path, extent: Extent, samplers: Sequence[Sampler], spent: Mapping[str, float]) -> Results:
    """Measures what lies in `out`, and writes results.json there."""
    contents = balanced(extent.samples, extent.classes)
    trained = balanced(extent.clips, extent.classes)
    data = features(read_clips(out / "clips", extent.clips))
    spread = float(np.sqrt(data.var(axis=0).mean()))
    data /= spread
    far = np.sqrt(data.shape[1])  # so that the distance between two clips is a mean over pixels, too

    def row(name: str, title: str, clips: Sequence[Frames], evaluations: int, seconds: float) -> Row:
        points = features(clips) / spread
        return Row(
            name=name,
            title=title,
            evaluations=evaluations,
            seconds=seconds,
            accuracy=accuracy(clips, contents),
            wasserstein=sliced_wasserstein(points, data),
            energy=class_energy_distance(points / far, contents, data / far, trained),
        )

    rows = [row(HELD_OUT, "clips that were held out", read_clips(out / HELD_OUT, extent.samples), 0, 0.0)]
    for sampler in samplers:
        clips = [read_frames(sample_path(out, sampler.name, number)) for number in range(extent.samples)]
        seconds = seconds_per_video(out, sampler.name, extent.samples)
        rows.append(row(sampler.name, sampler.title, clips, sampler.evaluations, seconds))
    results = Results(tuple(rows), dict(spent))
    (out / "results.json").write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
    return results


def video_path(out: Path, row: Row, number: int) -> Path:
    """The video of a row with that number, from 0."""
    return out / HELD_OUT / clip_name(number) if row.name == HELD_OUT else sample_path(out, row.name, number)


def read_results(path: Path) -> Results:
    """What `measure` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [Row(**{**row, "accuracy": Accuracy(**row["accuracy"])}) for row in content["rows"]]
    return Results(tuple(rows), content["spent"])


HEADINGS = (
    "sampler", "network calls", "s / video", "caption", "colour", "shape", "direction", "Wasserstein", "energy",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of HEADINGS."""
    right = row.accuracy
    rates = (f"{100 * value:.0f} %" for value in (right.caption, right.colour, right.shape, right.direction))
    calls, seconds = (str(row.evaluations), f"{row.seconds:.2f}") if row.evaluations else ("", "")
    return (row.title, calls, seconds, *rates, f"{row.wasserstein:.3f}", f"{row.energy:.4f}")


def as_text(results: Results) -> str:
    """The table for a terminal."""
    lines = [HEADINGS, *map(cells, results.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
