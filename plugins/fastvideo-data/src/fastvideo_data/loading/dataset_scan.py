"""One parquet file of a data set, looked at before anything is read: its footer, its columns, the shapes of its latents."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.loading.columns import column_problems
from fastvideo_data.loading.epoch_order import IntArray
from fastvideo_data.schema import SETTINGS_KEY, TENSOR_NAMES, is_absent, normalised_latents, tensor_columns

FIX_DAMAGED = "copy the file again, or delete it and preprocess its samples again"
NEVER_BY_DEFAULT = frozenset({"pil_image"})
_BUCKETED = ("vae_latent", "trajectory_latents", "audio_latent")
_SPOT_BYTES = 256
_EMPTY_BYTES = 256
"""Of a row in a column of empty byte strings, at most, pages' headers among it."""


@dataclass(frozen=True)
class ScannedFile:
    """What is known of a file.

    Args:
        path: the file.
        size: its bytes.
        contents: a digest of its footer and of a few spots of its tensors: other data under its name is told by it.
        tensors: names of the tensors that its rows have.
        columns: names of its columns.
        group_rows: rows of each row group.
        group_bytes: uncompressed bytes of each row group.
        shapes: the different shapes of latents.
        buckets: for each row, which of them.
        normalised: for each kind of latents, whether they are normalised.
        says_normalised: whether the file says so itself.
        encoder: what `preprocess` stored of the encoders; None in files of other programs.
    """

    path: Path
    size: int
    contents: str
    tensors: tuple[str, ...]
    columns: frozenset[str]
    group_rows: list[int]
    group_bytes: list[int]
    shapes: list[tuple[float, ...]]
    buckets: IntArray
    normalised: Mapping[str, bool]
    says_normalised: bool
    encoder: Mapping[str, str] | None


def scan(path: Path, wanted: Sequence[str] | None, unread: Collection[str]) -> ScannedFile | DataError:
    """Look at a file; what is wrong with it is returned, so that all files can be told of at once.

    Args:
        path: the file.
        wanted: names of the tensors that will be read; None for all known ones but NEVER_BY_DEFAULT.
        unread: names of tensors that are as if they were not there.
    """
    try:
        with foreign_file(path, "parquet file", DataError, FIX_DAMAGED), pq.ParquetFile(path) as handle:
            return _describe(path, handle, wanted, unread)
    except DataError as error:
        return error


def _describe(path: Path, handle: pq.ParquetFile, wanted: Sequence[str] | None, unread: Collection[str]) -> ScannedFile:
    footer, schema = handle.metadata, handle.schema_arrow
    columns = frozenset(schema.names) - {column for name in unread for column in tensor_columns(name)}
    looked_at = [name for name in TENSOR_NAMES if (name not in NEVER_BY_DEFAULT if wanted is None else name in wanted)]
    missing = [name for name in tensor_columns("text_embedding") if name not in columns]
    for name in TENSOR_NAMES:
        there = [column for column in tensor_columns(name) if column in columns]
        if there and name != "text_embedding":
            missing += [column for column in tensor_columns(name) if column not in columns]
    if missing:
        allowed = "every tensor X has the columns X_bytes, X_shape and X_dtype; text_embedding is always there"
        found = f"lacks the column(s) {', '.join(missing)}"
        raise DataError(Problem(found, str(path), allowed, "write the file again with these columns"))
    tensors = [name for name in TENSOR_NAMES if set(tensor_columns(name)) <= columns]
    if problems := column_problems(path, schema, [name for name in looked_at if name in tensors]):
        raise DataError(problems)
    tensors = [name for name in tensors if name not in looked_at or not _is_empty(path, handle, name)]
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    shapes, buckets = _bucket(path, handle, [name for name in _BUCKETED if name in tensors])
    normalised, says_normalised = normalised_latents(footer.metadata, where=str(path))
    return ScannedFile(
        path=path,
        size=path.stat().st_size,
        contents=_contents(path, footer),
        tensors=tuple(tensors),
        columns=columns,
        group_rows=[group.num_rows for group in groups],
        group_bytes=[group.total_byte_size for group in groups],
        shapes=shapes,
        buckets=buckets,
        normalised=normalised,
        says_normalised=says_normalised,
        encoder=_encoder(path, footer.metadata or {}),
    )


def _is_empty(path: Path, handle: pq.ParquetFile, name: str) -> bool:
    """Whether no row has the tensor.

    Raises:
        DataError: some rows have it and others have not; or it is the text, which is always there.
    """
    data, shape, dtype = tensor_columns(name)
    if _never_empty(handle.metadata, dtype):
        return False
    stored = handle.read(columns=[shape, dtype])
    rows = zip(stored.column(shape).to_pylist(), stored.column(dtype).to_pylist(), strict=True)
    empty = [number for number, row in enumerate(rows) if is_absent(*row)]
    if empty and (len(empty) < stored.num_rows or name == "text_embedding"):
        more = f", as in {len(empty) - 1} more of {stored.num_rows}" if len(empty) > 1 else ""
        fix = "remove such rows, or keep samples with and without it in separate folders"
        raise DataError(Problem(f"{name} is empty: the row has none{more}", f"{path}, row {empty[0]}", fix=fix))
    if empty and sum(chunk.total_uncompressed_size for chunk in _chunks(handle.metadata, data)) > _EMPTY_BYTES * len(
        empty
    ):
        fix = "write the shape and the dtype of every row"
        raise DataError(Problem(f"{data} holds bytes, but {shape} and {dtype} are empty", str(path), fix=fix))
    return bool(empty)


def _never_empty(footer: Any, dtype_column: str) -> bool:
    """Whether the statistics alone say that every row has a dtype."""
    found = [chunk.statistics for chunk in _chunks(footer, dtype_column)]
    return all(s is not None and s.has_min_max and s.has_null_count and not s.null_count and s.min for s in found)


def _chunks(footer: Any, column: str) -> list[Any]:
    """A column's part in each row group."""
    leaves = [footer.schema.column(i).path.split(".")[0] for i in range(footer.num_columns)]
    return [footer.row_group(group).column(leaves.index(column)) for group in range(footer.num_row_groups)]


def _encoder(path: Path, metadata: Mapping[bytes, bytes]) -> Mapping[str, str] | None:
    if SETTINGS_KEY not in metadata:
        return None
    try:
        encoder = dict(json.loads(metadata[SETTINGS_KEY]).get("encoder") or {})
    except (ValueError, TypeError, AttributeError) as error:
        found = f"{SETTINGS_KEY.decode()} in its footer cannot be read: {error}"
        raise DataError(Problem(found, str(path), fix=FIX_DAMAGED)) from error
    return encoder or None


def _bucket(path: Path, handle: pq.ParquetFile, tensors: Sequence[str]) -> tuple[list[tuple[float, ...]], IntArray]:
    keys = [f"{name}_shape" for name in tensors]
    if not keys:
        return [()], np.zeros(handle.metadata.num_rows, np.int64)
    shapes: dict[tuple[float, ...], int] = {}
    buckets = []
    table = handle.read(columns=keys)
    stored = [table.column(key).to_pylist() for key in keys]
    for row, of_row in enumerate(zip(*stored, strict=True)):
        if None in of_row:
            raise DataError(Problem(f"{keys[of_row.index(None)]} is null", f"{path}, row {row}", fix="remove the row"))
        buckets.append(shapes.setdefault(tuple(itertools.chain(*of_row)), len(shapes)))
    return list(shapes), np.array(buckets, np.int64)


def _contents(path: Path, footer: Any) -> str:
    """A digest that is cheap for terabytes: of the footer, and of the middle of each tensor in the first and last row group.

    The footer has every row group's place and sizes, statistics, settings of preprocessing. Rows that are written over in
    place, with other values of the same size away from these spots, stay unnoticed.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        end = os.fstat(file.fileno()).st_size
        length = int.from_bytes(_read_at(file.fileno(), end - 8, 4), "little")
        digest.update(_read_at(file.fileno(), max(end - 8 - length, 0), length))
        for middle in _middles(footer):
            digest.update(_read_at(file.fileno(), middle, _SPOT_BYTES))
    return digest.hexdigest()[:16]


def _read_at(file: int, place: int, size: int) -> bytes:
    return os.pread(file, size, place)


def _middles(footer: Any) -> Iterator[int]:
    payloads = {tensor_columns(name)[0] for name in TENSOR_NAMES}
    for number in sorted({0, footer.num_row_groups - 1} if footer.num_row_groups else ()):
        group = footer.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.split(".")[0] in payloads:
                start = min(place for place in (chunk.data_page_offset, chunk.dictionary_page_offset) if place)
                yield start + chunk.total_compressed_size // 2
