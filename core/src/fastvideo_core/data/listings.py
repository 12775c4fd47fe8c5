"""Files that list samples, one a row: csv with any of three delimiters, json, jsonl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvideo_core.data.text import read_text, shown
from fastvideo_core.errors import DataError, Problem, foreign_file

VIDEO_KEYS = ("video", "media_path", "video_path", "file_name", "path")
CAPTION_KEYS = ("caption", "prompt", "text", "cap")
LISTING_SUFFIXES = (".csv", ".json", ".jsonl")

_DELIMITERS = (",", ";", "\t")
_LONGEST_FIELD = "field larger than field limit"


@dataclass
class Listing:
    """What a file lists.

    Args:
        rows: of each row, its place in the file, what it names as video, and what it names as caption.
        unread: rows that are none, with the reason.
        keys: the keys, or columns, of all rows.
    """

    rows: list[tuple[str, object, object]] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def add(self, place: str, row: dict[str, Any]) -> None:
        """Add a row."""
        self.keys.update(row)
        self.rows.append((place, _first(row, VIDEO_KEYS), _first(row, CAPTION_KEYS)))


def read_listing(path: Path) -> Listing:
    """Read a .csv, .json or .jsonl file that lists samples; a row that is damaged does not end the reading.

    Raises:
        DataError: the file as a whole cannot be understood, or no row can name a video, or a caption.
    """
    listing = Listing()
    with foreign_file(path, "list of samples"):
        {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_jsonl}[path.suffix.lower()](path, listing)
    for names, what in ((VIDEO_KEYS, "video"), (CAPTION_KEYS, "caption")):
        if listing.keys and not listing.keys & set(names):
            found = f"no row names a {what}; the keys are {shown(', '.join(sorted(listing.keys)))}"
            fix = "rename the key; in a .csv the first line names the columns"
            raise DataError(Problem(found, str(path), allowed=f"one of {', '.join(names)}", fix=fix))
    return listing


def _first(row: dict[str, Any], names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _read_csv(path: Path, listing: Listing) -> None:
    text = read_text(path, bad_bytes=True)
    rows = _csv_rows(path, text, _delimiter(text))
    place, header = next(((place, row) for place, row in rows if row), ("", []))
    if isinstance(header, str):
        raise DataError(Problem(header, str(path.parent / place)))
    columns = [name.strip() for name in header]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(
            Problem(f"two columns have the name {shown(twice[0])}", str(path.parent / place), fix="rename one")
        )
    listing.keys.update(columns)
    for place, row in rows:
        if isinstance(row, str):
            listing.unread.append((place, row))
        elif len(row) > len(columns):
            reason = (
                f"more fields than the header has: {len(row)}, not {len(columns)}; put the caption in double quotes"
            )
            listing.unread.append((place, reason))
        elif row:
            listing.add(place, dict(zip(columns, row, strict=False)))


def _delimiter(text: str) -> str:
    """The one under which the first line names a video or a caption as a column of its own; the comma where none does."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    counts = {}
    for delimiter in _DELIMITERS:
        columns = {name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])}
        counts[delimiter] = bool(columns & set(VIDEO_KEYS)) + bool(columns & set(CAPTION_KEYS))
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str] | str]]:
    """Each row with its place; what is wrong with it, in words, where its quotes do not match."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            row: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                found = "a double quote that is opened here is never closed"
                raise DataError(Problem(found, f"{path}, line {first}", fix="close it")) from error
            if _LONGEST_FIELD in str(error):
                found = f"a field of more than {csv.field_size_limit()} characters begins here"
                fix = "close its double quote; if it is meant so, write the rows into a .jsonl file"
                raise DataError(Problem(found, f"{path}, line {first}", fix=fix)) from error
            row = f"is no valid row: {error}; a quote inside of double quotes is written twice"
        last = reader.line_num
        yield f"{path.name}, line {first}" if first == last else f"{path.name}, lines {first} to {last}", row


def _read_json(path: Path, listing: Listing) -> None:
    data = json.loads(read_text(path), parse_int=_short_int)
    if not isinstance(data, list):
        raise DataError(Problem(f"holds a {type(data).__name__}", str(path), allowed="a list of objects"))
    for number, row in enumerate(data):
        _add_object(row, f"{path.name}, entry {number}", listing)


def _read_jsonl(path: Path, listing: Listing) -> None:
    for number, line in enumerate(read_text(path, bad_bytes=True, any_newline=False).split("\n"), 1):
        place = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            with foreign_file(place, "JSON"):
                _add_object(json.loads(line, parse_int=_short_int), place, listing)
        except DataError as error:
            listing.unread.append((place, error.problems[0].found))


def _short_int(digits: str) -> int:
    """A number, which no caption and no video is: Python refuses to read very long ones."""
    return int(digits[:18])


def _add_object(row: object, place: str, listing: Listing) -> None:
    if isinstance(row, dict):
        listing.add(place, row)
    else:
        listing.unread.append((place, f"is no JSON object: it is a {type(row).__name__}"))
