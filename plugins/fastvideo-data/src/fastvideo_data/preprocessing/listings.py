"""Files that list samples, one a row: csv with any of three delimiters, json, jsonl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.text_files import read_text, shown

VIDEO_KEYS = ("video", "media_path", "video_path", "file_name", "path")
CAPTION_KEYS = ("caption", "prompt", "text", "cap")
MASK_KEY = "mask_path"
LISTING_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

_DELIMITERS = (",", ";", "\t")
_LONGEST_FIELD = "field larger than field limit"
_QUOTE = "put the caption in double quotes"
_OF_NUMBERS = ("fps", "width", "height", "num_frames", "frames", "duration", "duration_sec", "size")
"""Columns that hold numbers, whatever a file has in them."""
_UNKNOWN = ("", "n/a", "na", "nan", "none", "null", "unknown", "-", "?")


@dataclass
class Listing:
    """What a file lists.

    Args:
        rows: of each row, its place in the file, and what it names as video, as caption and as mask.
        unread: rows that are none, with the reason.
        keys: the keys, or columns, of all rows.
    """

    rows: list[tuple[str, object, object, object]] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def add(self, place: str, row: dict[str, Any]) -> None:
        """Add a row."""
        self.keys.update(row)
        self.rows.append((place, _first(row, VIDEO_KEYS), _first(row, CAPTION_KEYS), row.get(MASK_KEY)))


def read_listing(path: Path) -> Listing:
    """Read a .csv, .tsv, .json or .jsonl file that lists samples; a row that is damaged does not end the reading.

    Raises:
        DataError: the file as a whole cannot be understood, or no row can name a video, or a caption.
    """
    listing = Listing()
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_jsonl}
    with foreign_file(path, "list of samples"):
        readers[path.suffix.lower()](path, listing)
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
    delimiter = _delimiter(text)
    rows = _csv_rows(path, text, delimiter)
    header = next((row for row in rows if row.fields or row.wrong), _CsvRow(path.name, "", []))
    where = str(path.parent / header.place)
    if header.wrong:
        raise DataError(Problem(header.wrong, where))
    columns = [name.strip() for name in header.fields]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(Problem(f"two columns have the name {shown(twice[0])}", where, fix="rename one"))
    listing.keys.update(columns)
    kept = [row for row in rows if row.fields or row.wrong]
    numbers = _number_columns(columns, kept)
    for row in kept:
        if wrong := row.wrong or _too_long(columns, row) or _spilled(columns, row, numbers, delimiter):
            listing.unread.append((row.place, wrong))
        else:
            listing.add(row.place, dict(zip(columns, row.fields, strict=False)))


@dataclass(frozen=True)
class _CsvRow:
    """A row: its place, its text, its fields, and what is wrong with it where its quotes do not match."""

    place: str
    raw: str
    fields: list[str]
    wrong: str = ""


def _too_long(columns: list[str], row: _CsvRow) -> str:
    found = f"{len(row.fields)}, not {len(columns)}; {_QUOTE}"
    return f"more fields than the header has: {found}" if len(row.fields) > len(columns) else ""


def _spilled(columns: list[str], row: _CsvRow, numbers: set[int], delimiter: str) -> str:
    """What tells that delimiters in a caption without quotes filled columns that the row leaves out; empty for nothing.

    Such a column is one of numbers; or it begins with a blank, as the rest of a sentence does, where the caption does not.
    """
    filled = next((i for i, field in enumerate(row.fields) if i in numbers and not _maybe_number(field)), None)
    caption = next((columns.index(name) for name in CAPTION_KEYS if name in columns), len(columns))
    if filled is None and 0 < caption < len(row.fields) - 1:
        filled = caption + 1 if f"{delimiter}{row.fields[caption]}{delimiter} " in row.raw else None
    if filled is None:
        return ""
    found = f"{columns[filled]} is {shown(row.fields[filled], 40)!r}; {_QUOTE}"
    return f"the caption seems to go on in another column: {found}"


def _number_columns(columns: list[str], rows: list[_CsvRow]) -> set[int]:
    """The columns of numbers: by their names, or because most rows have one there."""
    found = set()
    for i, name in enumerate(columns):
        fields = [row.fields[i] for row in rows if i < len(row.fields) <= len(columns)]
        fields = [field for field in fields if not _is_unknown(field)]
        if name in _OF_NUMBERS or 2 * sum(map(_is_number, fields)) > len(fields):
            found.add(i)
    return found - {columns.index(name) for name in (*VIDEO_KEYS, *CAPTION_KEYS) if name in columns}


def _is_number(field: str) -> bool:
    return field.strip().lstrip("+-").replace(".", "", 1).isdigit()


def _maybe_number(field: str) -> bool:
    """Whether it begins like a number, or stands for one that is not known."""
    return _is_unknown(field) or field.strip().lstrip("+-.")[:1].isdigit()


def _is_unknown(field: str) -> bool:
    return field.strip().lower() in _UNKNOWN


def _delimiter(text: str) -> str:
    """The one under which the first line names a video or a caption as a column of its own; the comma where none does."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    counts = {}
    for delimiter in _DELIMITERS:
        columns = {name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])}
        counts[delimiter] = bool(columns & set(VIDEO_KEYS)) + bool(columns & set(CAPTION_KEYS))
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[_CsvRow]:
    lines = text.split("\n")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        first = reader.line_num
        fields, wrong = [], ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"{path}, line {first + 1}"
            if "unexpected end of data" in str(error):
                found = "a double quote that is opened here is never closed"
                raise DataError(Problem(found, where, fix="close it")) from error
            if _LONGEST_FIELD in str(error):
                found = f"a field of more than {csv.field_size_limit()} characters begins here"
                fix = "close its double quote; if it is meant so, write the rows into a .jsonl file"
                raise DataError(Problem(found, where, fix=fix)) from error
            wrong = f"is no valid row: {error}; a quote inside of double quotes is written twice"
        last = reader.line_num
        place = f"line {last}" if first + 1 == last else f"lines {first + 1} to {last}"
        yield _CsvRow(f"{path.name}, {place}", "\n".join(lines[first:last]), fields, wrong)


def _read_json(path: Path, listing: Listing) -> None:
    data = json.loads(read_text(path, bad_bytes=True), parse_int=_short_int)
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
