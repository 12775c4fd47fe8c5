"""The files of a data set, looked at before anything is read: footers, columns, the shapes of latents."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fastvideo_core.distributed import context
from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.folder_walk import files_below
from fastvideo_data.loading.columns import column_problems, metadata_types, tensor_types
from fastvideo_data.loading.epoch_order import IntArray
from fastvideo_data.schema import SETTINGS_KEY, is_absent, normalised_latents, tensor_columns, tensors_of

FIX_DAMAGED = "copy the file again, or delete it and preprocess its samples again"
_BUCKETED = ("vae_latent", "trajectory_latents", "audio_latent", "trajectory_audio_latents")
_SPOT_BYTES = 256
_SCANNERS = 8
_KEPT_FOOTERS = 64 << 20
"""Bytes of footers that stay in memory, as they are stored; those of larger data sets are parsed whenever a file is opened."""
_FIX_EMPTY = "write a data set with: fastvideo-distill preprocess, or correct the path"
_EMPTY_BYTES = 256
"""Of a row in a column of empty byte strings, at most, pages' headers among it."""


@dataclass(frozen=True)
class ScannedTensor:
    """What is known of a tensor of a file.

    Args:
        problems: why it cannot be read.
        absent: whether no row has it.
        shapes: its different shapes, of latents alone.
        shape_of_row: for each row, which of them.
    """

    problems: tuple[Problem, ...] = ()
    absent: bool = False
    shapes: tuple[tuple[float, ...], ...] = ()
    shape_of_row: IntArray | None = None


@dataclass(frozen=True)
class ScannedFile:
    """What is known of a file.

    Args:
        path: the file.
        size: its bytes.
        contents: a digest of its footer and of a few spots of its tensors: other data under its name is told by it.
        columns: names of its columns.
        metadata_problems: what is wrong with its metadata columns.
        tensors: by name, those that have all their columns.
        group_rows: rows of each row group.
        group_bytes: uncompressed bytes of each row group.
        normalised: for each tensor of latents, whether they are normalised.
        says_normalised: whether the file says so itself.
        encoder: what `preprocess` stored of the encoders; None in files of other programs.
        footer: arrow's FileMetaData; None where it is not kept.
    """

    path: Path
    size: int
    contents: str
    columns: frozenset[str]
    metadata_problems: tuple[Problem, ...]
    tensors: Mapping[str, ScannedTensor]
    group_rows: list[int]
    group_bytes: list[int]
    normalised: Mapping[str, bool]
    says_normalised: bool
    encoder: Mapping[str, str] | None
    footer: Any

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)

    def present(self) -> tuple[str, ...]:
        """The names of the tensors that its rows have."""
        return tuple(name for name, tensor in self.tensors.items() if not tensor.absent)

    def reading_problems(self, names: Collection[str], complete: Collection[str]) -> list[Problem]:
        """Why tensors of the file cannot be read.

        Args:
            names: of the tensors that are read where they are there.
            complete: of the tensors that have all their columns, or none.
        """
        needed = [*tensor_columns("text_embedding")]
        needed += [
            column for name in complete if self.columns & {*tensor_columns(name)} for column in tensor_columns(name)
        ]
        if missing := [column for column in dict.fromkeys(needed) if column not in self.columns]:
            allowed = "every tensor X has the columns X_bytes, X_shape and X_dtype; text_embedding is always there"
            found = f"lacks the column(s) {', '.join(missing)}"
            return [Problem(found, str(self.path), allowed, "write the file again with these columns")]
        read = [tensor for name, tensor in self.tensors.items() if name in names or name == "text_embedding"]
        return [*itertools.chain.from_iterable(tensor.problems for tensor in read), *self.metadata_problems]

    def latent_shapes(self, names: Collection[str]) -> tuple[list[tuple[float, ...]], IntArray]:
        """The different shapes that the latents among some tensors have together, and for each row which of them."""
        read = [
            (t.shapes, t.shape_of_row) for n, t in self.tensors.items() if n in names and t.shape_of_row is not None
        ]
        if not read:
            return [()], np.zeros(self.num_rows, np.int64)
        numbers: dict[tuple[int, ...], int] = {}
        rows = zip(*(of_row.tolist() for _, of_row in read), strict=True)
        buckets = [numbers.setdefault(row, len(numbers)) for row in rows]
        shapes = [tuple(itertools.chain(*(read[i][0][n] for i, n in enumerate(row)))) for row in numbers]
        return shapes, np.array(buckets, np.int64)


def scan_files(path: Path, *, together: bool = False) -> tuple[ScannedFile, ...]:
    """Look at all parquet files below a folder (or one file), sorted by relative name: footers, and latent shapes.

    Args:
        together: the run's processes share out the files that the main one finds, and tell each other; collective.

    Raises:
        DataError: nothing there, no rows at all, or files that are damaged or no parquet: all of these are named at once.
    """
    rank, size = (context.rank(), context.world_size()) if together else (0, 1)
    names = context.told_by_main(partial(_find, path)) if together else _find(path)
    paths = [path if path.is_file() else path / name for name in names]
    with ThreadPoolExecutor(_SCANNERS) as pool:
        own = _keep_footers(list(pool.map(scan, paths[rank::size])), _KEPT_FOOTERS // size)
    shares = context.gathered(own) if together else [own]
    results = [one for share in itertools.zip_longest(*shares) for one in share if one is not None]
    problems = [problem for result in results if isinstance(result, DataError) for problem in result.problems]
    if problems:
        raise DataError(problems)
    files = tuple(result for result in results if isinstance(result, ScannedFile))
    if not any(file.num_rows for file in files):
        fix = "preprocess some samples into it, or point data_path elsewhere"
        raise DataError(Problem(f"its {len(files)} parquet file(s) hold no rows at all", str(path), fix=fix))
    return files


def _keep_footers(results: Sequence[ScannedFile | DataError], most: int) -> list[ScannedFile | DataError]:
    """The same, of which the first keep their footers, up to `most` bytes."""
    sizes = itertools.accumulate(0 if isinstance(one, DataError) else one.footer.serialized_size for one in results)
    return [
        one if isinstance(one, DataError) or size <= most else replace(one, footer=None)
        for one, size in zip(results, sizes, strict=True)
    ]


def _find(path: Path) -> list[str]:
    if path.is_file():
        return [path.name]
    if not path.exists():
        raise DataError(Problem("there is no such file or folder", str(path), fix=_FIX_EMPTY))
    found = [file.relative_to(path).as_posix() for file in files_below(path) if file.suffix.lower() == ".parquet"]
    if not found:
        raise DataError(Problem("there is no *.parquet file in or below the folder", str(path), fix=_FIX_EMPTY))
    return sorted(found)


def scan(path: Path) -> ScannedFile | DataError:
    """Look at a file; why it cannot be opened is returned, so that all files can be told of at once."""
    try:
        with foreign_file(path, "parquet file", DataError, FIX_DAMAGED), pq.ParquetFile(path) as handle:
            return _describe(path, handle)
    except DataError as error:
        return error


def _describe(path: Path, handle: pq.ParquetFile) -> ScannedFile:
    footer, schema = handle.metadata, handle.schema_arrow
    names = tensors_of(schema.names)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    normalised, says_normalised = normalised_latents(footer.metadata, where=str(path))
    return ScannedFile(
        path=path,
        size=path.stat().st_size,
        contents=_contents(path, footer, names),
        columns=frozenset(schema.names),
        metadata_problems=tuple(column_problems(path, schema, metadata_types())),
        tensors={name: _look_at(path, handle, name) for name in names},
        group_rows=[group.num_rows for group in groups],
        group_bytes=[group.total_byte_size for group in groups],
        normalised=normalised,
        says_normalised=says_normalised,
        encoder=_encoder(path, footer.metadata or {}),
        footer=footer,
    )


def _look_at(path: Path, handle: pq.ParquetFile, name: str) -> ScannedTensor:
    """What is wrong with one tensor is kept with it: a run that does not read it has no use for that."""
    if problems := column_problems(path, handle.schema_arrow, tensor_types(name)):
        return ScannedTensor(tuple(problems))
    try:
        with foreign_file(path, "parquet file", DataError, FIX_DAMAGED):
            if _is_empty(path, handle, name):
                return ScannedTensor(absent=True)
            return ScannedTensor((), False, *_shapes(path, handle, name)) if name in _BUCKETED else ScannedTensor()
    except DataError as error:
        return ScannedTensor(error.problems)


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


def _shapes(path: Path, handle: pq.ParquetFile, name: str) -> tuple[tuple[tuple[float, ...], ...], IntArray]:
    column = f"{name}_shape"
    numbers: dict[tuple[float, ...], int] = {}
    of_row = []
    for row, shape in enumerate(handle.read(columns=[column]).column(column).to_pylist()):
        if shape is None:
            raise DataError(Problem(f"{column} is null", f"{path}, row {row}", fix="remove the row"))
        of_row.append(numbers.setdefault(tuple(shape), len(numbers)))
    return tuple(numbers), np.array(of_row, np.int64)


def _contents(path: Path, footer: Any, tensors: Sequence[str]) -> str:
    """A digest that is cheap for terabytes: of the footer, and of the middle of each tensor in the first and last row group.

    The footer has every row group's place and sizes, statistics, settings of preprocessing. Rows that are written over in
    place, with other values of the same size away from these spots, stay unnoticed.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        end = os.fstat(file.fileno()).st_size
        length = int.from_bytes(_read_at(file.fileno(), end - 8, 4), "little")
        digest.update(_read_at(file.fileno(), max(end - 8 - length, 0), length))
        for middle in _middles(footer, tensors):
            digest.update(_read_at(file.fileno(), middle, _SPOT_BYTES))
    return digest.hexdigest()[:16]


def _read_at(file: int, place: int, size: int) -> bytes:
    return os.pread(file, size, place)


def _middles(footer: Any, tensors: Sequence[str]) -> Iterator[int]:
    payloads = {tensor_columns(name)[0] for name in tensors}
    for number in sorted({0, footer.num_row_groups - 1} if footer.num_row_groups else ()):
        group = footer.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.split(".")[0] in payloads:
                start = min(place for place in (chunk.data_page_offset, chunk.dictionary_page_offset) if place)
                yield start + chunk.total_compressed_size // 2
