"""Raw data as users have it: videos with captions in four conventions, or prompts alone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvideo_core.errors import DataError, Problem, foreign_file

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
VIDEO_KEYS = ("video", "media_path", "video_path", "file_name")
CAPTION_KEYS = ("caption", "prompt", "text")
METADATA_NAMES = ("metadata.csv", "metadata.json", "metadata.jsonl")

_CONVENTIONS = (
    "a folder with x.mp4 beside x.txt, with metadata.csv|json|jsonl, or with videos.txt and prompts.txt; "
    "a metadata file itself; a .txt file of prompts, one a line"
)


@dataclass(frozen=True)
class SourceItem:
    """One raw sample.

    Args:
        id: unique in its source and the same at every discovery.
        video: the video file; None when there is a prompt alone.
        caption: its caption, stripped, not empty.
    """

    id: str
    video: Path | None
    caption: str


@dataclass(frozen=True)
class SourceProblem:
    """Something that was found but cannot be used, and why."""

    item: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What discovery found.

    Args:
        path: where it looked.
        has_videos: False when there are prompts alone.
        items: usable samples, in a fixed order.
        problems: everything that is not usable.
    """

    path: Path
    has_videos: bool
    items: tuple[SourceItem, ...]
    problems: tuple[SourceProblem, ...]


def discover(path: str | Path) -> Source:
    """Find videos and captions, or prompts, at `path`.

    Raises:
        DataError: there is nothing that follows a convention, several conventions at once, or a file that lists the
            samples cannot be understood.
    """
    with foreign_file(path, "source of samples"):
        return _discover(Path(path))


def _discover(path: Path) -> Source:
    if path.is_file():
        if path.name in METADATA_NAMES or path.suffix in (".csv", ".json", ".jsonl"):
            return _from_metadata(path)
        if path.suffix == ".txt":
            return _from_prompts(path)
    if not path.exists():
        raise DataError(Problem("there is no such file or folder", str(path), allowed=_CONVENTIONS))
    if not path.is_dir():
        raise DataError(Problem("is no source of samples", str(path), allowed=_CONVENTIONS))
    listings = [path / name for name in METADATA_NAMES if (path / name).is_file()]
    if (path / "videos.txt").is_file():
        listings.append(path / "videos.txt")
    if len(listings) > 1:
        found = f"several files list the samples: {', '.join(p.name for p in listings)}"
        raise DataError(Problem(found, str(path), fix="keep one of them, or name the metadata file itself"))
    if not listings:
        return _from_sidecars(path)
    return _from_parallel(path) if listings[0].name == "videos.txt" else _from_metadata(listings[0])


@dataclass(frozen=True)
class _Entry:
    place: str
    video: Path
    caption: object


def _from_sidecars(root: Path) -> Source:
    videos = _videos_below(root)
    if not videos and (root / "prompts.txt").is_file():
        return _from_prompts(root / "prompts.txt")
    if not videos:
        raise DataError(Problem("no video and no list of samples was found", str(root), allowed=_CONVENTIONS))
    entries = []
    for video in videos:
        sidecar = video.with_suffix(".txt")
        entries.append(_Entry(_name(video, root), video, _text(sidecar) if sidecar.is_file() else None))
    stems = {video.with_suffix("") for video in videos}
    lonely = [p for p in sorted(root.rglob("*.txt")) if p.with_suffix("") not in stems]
    return _source(root, root, entries, [SourceProblem(_name(p, root), "caption without a video") for p in lonely])


def _from_parallel(root: Path) -> Source:
    if not (root / "prompts.txt").is_file():
        raise DataError(Problem("there is videos.txt, but no prompts.txt beside it", str(root), fix="add prompts.txt"))
    videos, prompts = _lines(root / "videos.txt"), _lines(root / "prompts.txt")
    if len(videos) != len(prompts):
        found = f"videos.txt has {len(videos)} lines, but prompts.txt has {len(prompts)}"
        raise DataError(Problem(found, str(root), fix="line n of one belongs to line n of the other: align them"))
    entries = []
    problems = []
    for i, (video, prompt) in enumerate(zip(videos, prompts, strict=True), 1):
        if video:
            entries.append(_Entry(f"videos.txt, line {i}", root / video, prompt))
        else:
            problems.append(SourceProblem(f"videos.txt, line {i}", "the line names no video"))
    return _source(root, root, entries, problems + _unlisted(root, entries, "videos.txt"))


def _from_metadata(path: Path) -> Source:
    rows = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _jsonl_rows}[path.suffix](path)
    keys = {key for _, row in rows for key in row}
    for names, what in ((VIDEO_KEYS, "video"), (CAPTION_KEYS, "caption")):
        if rows and not keys & set(names):
            found = f"no row names a {what}; the keys are {', '.join(sorted(keys)) or 'none'}"
            raise DataError(Problem(found, str(path), allowed=f"one of {', '.join(names)}", fix="rename the column"))
    entries = []
    problems = []
    for place, row in rows:
        video = _first(row, VIDEO_KEYS)
        if isinstance(video, str) and video.strip():
            entries.append(_Entry(place, path.parent / video.strip(), _first(row, CAPTION_KEYS)))
        else:
            problems.append(SourceProblem(place, "the row names no video"))
    return _source(path, path.parent, entries, problems + _unlisted(path.parent, entries, path.name))


def _from_prompts(path: Path) -> Source:
    items, problems = [], []
    for i, line in enumerate(_lines(path), 1):
        if line:
            items.append(SourceItem(f"prompt-{i:06d}", None, line))
        else:
            problems.append(SourceProblem(f"{path.name}, line {i}", "empty prompt"))
    return Source(path, False, tuple(items), tuple(problems))


def _source(path: Path, root: Path, entries: Iterable[_Entry], problems: list[SourceProblem]) -> Source:
    items = []
    seen: Counter[str] = Counter()
    for entry in entries:
        name = _name(entry.video, root)
        caption = entry.caption.strip() if isinstance(entry.caption, str) else entry.caption
        if not entry.video.is_file():
            problems.append(SourceProblem(f"{name} ({entry.place})", "the video file is missing"))
        elif caption is None or caption == "":
            problems.append(SourceProblem(name, "missing caption"))
        elif not isinstance(caption, str):
            problems.append(SourceProblem(name, f"the caption is no text but {type(caption).__name__}"))
        else:
            seen[name] += 1
            again = f"~{seen[name]}" if seen[name] > 1 else ""  # the same video with another caption
            items.append(SourceItem(name + again, entry.video, caption))
    return Source(path, True, tuple(items), tuple(problems))


def _unlisted(root: Path, entries: Iterable[_Entry], listing: str) -> list[SourceProblem]:
    listed = {entry.video.resolve() for entry in entries}
    others = [video for video in _videos_below(root) if video.resolve() not in listed]
    return [SourceProblem(_name(video, root), f"not listed in {listing}") for video in others]


def _videos_below(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _first(row: dict[str, Any], names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(Problem(f"is not UTF-8 text: {error}", str(path), fix="save it as UTF-8")) from error


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in _text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(_text(path).splitlines(keepends=True))
    return [(f"{path.name}, line {reader.line_num}", row) for row in reader]


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    data = _parsed(_text(path), str(path))
    if not isinstance(data, list):
        raise DataError(Problem(f"holds a {type(data).__name__}", str(path), allowed="a list of objects"))
    return [_object(row, f"{path.name}, entry {i}", path) for i, row in enumerate(data)]


def _jsonl_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = [(f"{path.name}, line {i}", line) for i, line in enumerate(_lines(path), 1) if line]
    return [_object(_parsed(line, f"{path.parent / place}"), place, path) for place, line in lines]


def _object(row: object, place: str, path: Path) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise DataError(Problem(f"is a {type(row).__name__}", str(path.parent / place), allowed="a JSON object"))
    return place, row


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(Problem(f"is no valid JSON: {error}", where)) from error
