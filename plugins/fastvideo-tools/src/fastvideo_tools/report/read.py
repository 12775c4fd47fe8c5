"""What a run's folder tells: its log, configuration, environment, checkpoints and validation videos."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvideo_core.checkpoint import storage
from fastvideo_core.config.document import read_document
from fastvideo_core.errors import DataError, FastVideoError, Problem, foreign_file, printable

MOST_POINTS = 1000
"""Of a curve on the page; longer ones are averaged in groups of neighbours."""

LARGEST = 1e100
"""What is larger is no value that a page could draw."""

WATCH = "quality/"
"""What the names of the metrics of the callback `quality_watch` begin with."""
WARNINGS = f"{WATCH}warnings"
"""How often it has warned so far."""
REFERENCE = f"{WATCH}reference_"
"""Logged once: how the teacher's samples, which the student's are compared with, lie beside the data."""
REFERENCE_WARNINGS = f"{REFERENCE}warnings"
"""Whether it warned of them: of few, only of what cannot be chance."""

BEST = "best"
"""The checkpoint that `quality_watch` keeps aside."""

_STEP = re.compile(r"step-(\d{1,18})$")
_CHECKPOINT = re.compile(r"checkpoint-\d{1,18}$")
_VIDEO = re.compile(r"(?:(?P<label>.+)-)?\d+$")

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its step and bytes on disk."""

    name: str
    step: int
    size: int


@dataclass(frozen=True)
class Validation:
    """Videos of one prompt and one way of sampling (its label, as in `teacher-00.mp4`; empty without), by step."""

    caption: str
    kind: str
    videos: Mapping[int, Path]


@dataclass(frozen=True)
class RunFolder:
    """Everything on the page.

    Attributes:
        config: run.yaml as it was resolved.
        environment: what the newest start of the run wrote about where it runs; empty for runs that wrote none.
        series: metric -> (step, value); values that are not finite are left out.
        skipped: logged steps, each with how many steps were skipped since the one before it, where some were.
        alarms: logged steps at which the quality watch warned of the student.
        wrong_reference: measures of the teacher's samples that are so far from the data's that the watch warned of them.
        last: the last line of the log; numbers only.
        notes: what could not be read, for the reader.
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    series: Mapping[str, Series]
    skipped: Series
    alarms: Sequence[int]
    wrong_reference: Sequence[str]
    last: Mapping[str, float]
    checkpoints: Sequence[Checkpoint]
    validations: Sequence[Validation]
    notes: Sequence[str] = ()

    @property
    def max_steps(self) -> int:
        return int(self.config["training"]["max_train_steps"])

    @property
    def finished(self) -> bool:
        return int(self.last.get("step", 0)) >= self.max_steps


def read_run(path: Path) -> RunFolder:
    """Reads a run's folder; a half-written last line of a live run is left out.

    What is damaged beside run.yaml is left out and noted.

    Raises:
        DataError: it is no run's folder.
        ConfigError: its run.yaml cannot be read.
    """
    if (path / "state.json").is_file():
        raise DataError(Problem("is a checkpoint", str(path), fix=f"give the run's folder, {path.parent}"))
    config_file = path / "run.yaml"
    if not config_file.is_file():
        raise DataError(Problem("is not a run's folder: it has no run.yaml", str(path), fix=_FIX))
    config = read_document(config_file).data
    if not _is_resolved(config):
        found = "is not the resolved configuration that a run writes: recipe or training.max_train_steps is missing"
        raise DataError(Problem(found, str(config_file), fix=_FIX))
    notes: list[str] = []
    series, last = _read_log(path / "metrics.jsonl", notes)
    warned = any(count > 0 for _, count in series.get(REFERENCE_WARNINGS, []))
    return RunFolder(
        path=path,
        config=config,
        environment=_read_environment(path / "environment.json", notes),
        series={name: thinned(points) for name, points in series.items()},
        skipped=[(step, count) for step, count in series.get("skipped_steps", []) if count > 0],
        alarms=_rises(series.get(WARNINGS, [])),
        wrong_reference=[
            name.removeprefix(REFERENCE)
            for name, points in series.items()
            if warned
            and name.startswith(REFERENCE)
            and name != REFERENCE_WARNINGS
            and abs(points[-1][1]) > _reference_threshold(config)
        ],
        last=last,
        checkpoints=_checkpoints(path, notes),
        validations=_validations(path / "validation", notes),
        notes=notes,
    )


@contextmanager
def _noting(notes: list[str], path: Path, what: str) -> Iterator[None]:
    """Around one reading; why it failed becomes a note."""
    try:
        with foreign_file(path, what):
            yield
    except FastVideoError as error:
        notes += [f"{problem.where}: {problem.found}" for problem in error.problems]


_FIX = "give the output_dir of a run"


def _is_resolved(config: object) -> bool:
    if not isinstance(config, Mapping):
        return False
    recipe, training = config.get("recipe"), config.get("training")
    return (
        isinstance(recipe, Mapping)
        and {"family", "method"} <= set(recipe)
        and isinstance(training, Mapping)
        and isinstance(training.get("max_train_steps"), int)
        and 0 < training["max_train_steps"] < 2**63
    )


def thinned(points: Series, most: int = MOST_POINTS) -> Series:
    """At most so many points: means over groups of neighbours, the last group may be smaller."""
    group = -(-len(points) // most) or 1
    if group == 1:
        return points
    means = []
    for start in range(0, len(points), group):
        part = points[start : start + group]
        means.append((part[-1][0], sum(y for _, y in part) / len(part)))
    return means


def _read_log(path: Path, notes: list[str]) -> tuple[dict[str, Series], dict[str, float]]:
    series: dict[str, Series] = {}
    last: dict[str, float] = {}
    damaged: list[int] = []
    with _noting(notes, path, "log"):
        if path.exists():  # else the run has not logged yet
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.endswith(b"\n"):
                        break  # being written right now
                    values = _logged(line)
                    if values is None:
                        damaged.append(number)
                        continue
                    last = values
                    for name, value in values.items():
                        if name != "step":
                            series.setdefault(name, []).append((values["step"], value))
    if damaged:
        are = "lines are" if len(damaged) > 1 else "line is"
        notes.append(f"{path}:{damaged[0]}: {len(damaged)} {are} no logged step and left out")
    return series, last


def _logged(line: bytes) -> dict[str, float] | None:
    """The numbers of a line of the log; NaN and infinity are texts there. None when it is no such line."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    values = {printable(name): float(value) for name, value in record.items() if _is_drawn(value)}
    return values if values.get("step", -1) >= 0 else None


def _is_drawn(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _rises(counts: Series) -> list[int]:
    """The steps at which a count is higher than before."""
    before = [0.0, *(count for _, count in counts)]
    return [int(step) for (step, count), earlier in zip(counts, before, strict=False) if count > earlier]


def _reference_threshold(config: Mapping[str, Any]) -> float:
    """Of the logarithms and distances that the watch logs; infinite in a run.yaml that does not say it."""
    options: Any = config.get("callbacks")
    for name in ("quality_watch", "reference_threshold"):
        options = options.get(name) if isinstance(options, Mapping) else None
    return math.log(options) if isinstance(options, (int, float)) and options > 0 else math.inf


def _read_environment(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    text = ""
    with _noting(notes, path, "environment"):
        text = path.read_bytes().decode(errors="replace")
    try:
        environment = json.loads(text)
    except (ValueError, RecursionError):  # a run that starts right now, or was killed as it did
        environment = None
    return environment if isinstance(environment, dict) else {"incomplete": text}


def _checkpoints(path: Path, notes: list[str]) -> list[Checkpoint]:
    found = []
    for folder in [*sorted(path.glob("checkpoint-*")), path / BEST]:
        if not _CHECKPOINT.search(folder.name) and not (folder.name == BEST and folder.exists()):
            continue
        with _noting(notes, folder, "checkpoint"):
            if flaw := storage.flaw(folder):
                notes.append(f"{folder}: is not complete: {flaw}")
                continue
            try:
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            except FileNotFoundError:  # the live run has just made room for a newer one
                continue
            found.append(Checkpoint(folder.name, storage.read_document(folder).step, size))
    return found


def _validations(path: Path, notes: list[str]) -> list[Validation]:
    """By prompt and by how it was sampled (the label in the file's name)."""
    found: dict[tuple[str, str], dict[int, Path]] = {}
    captions: dict[tuple[str, str], str] = {}
    for step_folder in sorted(path.glob("step-*")):
        match = _STEP.search(step_folder.name)
        if match is None:
            continue
        for video in sorted(step_folder.glob("*.mp4")):
            named = _VIDEO.match(video.stem)
            key = ((named["label"] or "") if named else "", video.stem)
            found.setdefault(key, {})[int(match[1])] = video
            captions.setdefault(key, video.stem)
            caption = video.with_suffix(".txt")
            with _noting(notes, caption, "caption"):
                if caption.exists():
                    captions[key] = caption.read_text(encoding="utf-8").strip()
    return [Validation(captions[key], key[0], videos) for key, videos in found.items()]
