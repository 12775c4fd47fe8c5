"""A folder of parquet files, opened: checked as a whole, then read one row group at a time."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.loading.dataset_scan import FIX_DAMAGED, ScannedFile, scan
from fastvideo_data.loading.epoch_order import IntArray, Layout
from fastvideo_data.preprocessing.folder_walk import files_below
from fastvideo_data.schema import METADATA_TYPES, TENSOR_NAMES, check_tensor_names, tensor_columns

_OPEN_FILES = 32
_BUFFER_BYTES = 64 << 10
_PIECE_BYTES = 3 << 20
_SCANNERS = 8
_KEPT_FOOTERS = 64 << 20
"""Bytes of footers that stay in memory, as they are stored; those of larger data sets are parsed whenever a file is opened."""
_BY_DEFAULT = tuple(name for name in TENSOR_NAMES if name != "pil_image")
_FIX_EMPTY = "write a data set with: fastvideo-distill preprocess, or correct the path"
_FIX_CHANGED = "do not change a data set while it is in use; start the run again"


@dataclass(frozen=True)
class ParquetFolder:
    """An opened data set, as seen by who reads some of its tensors.

    Args:
        root: the folder (or the one file).
        names: relative names of its files, sorted.
        files: what is known of each of them.
        layout: row groups and latent shapes, numbered through all files.
        group_file: for each row group, the number of its file.
        group_index: for each row group, its number inside its file.
        tensors: names of the tensors to read.
        metadata: names of the metadata columns that the files hold.
        normalised: for each of its tensors that are latents, whether they are normalised.
        handles: open files.
    """

    root: Path
    names: tuple[str, ...]
    files: tuple[ScannedFile, ...]
    layout: Layout
    group_file: IntArray
    group_index: IntArray
    tensors: tuple[str, ...]
    metadata: tuple[str, ...]
    normalised: Mapping[str, bool]
    handles: Handles

    def where(self, group: int, row: int | None = None) -> str:
        """How an error names a row group, or a row in it: file and number inside the file."""
        path = self._file(group).path
        if row is None:
            return f"{path}, row group {int(self.group_index[group])}"
        first_group = group - int(self.group_index[group])
        first_row = self.layout.group_starts[group] - self.layout.group_starts[first_group]
        return f"{path}, row {int(first_row) + row}"

    def details(self, group: int) -> dict[str, list[Any]]:
        """One row group's small columns as lists: shape and dtype of each of `tensors`, and `metadata` as far as it is there.

        Raises:
            DataError: the row group cannot be read.
        """
        columns = [column for name in self.tensors for column in tensor_columns(name)[1:]] + list(self.metadata)
        with self._opened(group) as (handle, index):
            table = handle.read_row_group(index, columns=columns, use_threads=False)
            self._check_rows(group, table.num_rows)
            return {name: table.column(name).to_pylist() for name in table.column_names}

    def payloads(self, group: int, decoded_bytes: int = 0) -> Iterator[pa.RecordBatch]:
        """The bytes columns of `tensors` of one row group, in order, a few rows at a time.

        The pieces are small, so that arrow uses the same memory for each of them. Safe to call from several threads.

        Args:
            group: number of the row group.
            decoded_bytes: what the columns hold when values that are stored once and repeated are counted every time.

        Raises:
            DataError: the row group cannot be read.
        """
        columns = [tensor_columns(name)[0] for name in self.tensors]
        rows, size = int(self.layout.group_rows[group]), max(int(self.layout.group_bytes[group]), decoded_bytes)
        with self._opened(group) as (handle, index):
            found = 0
            for piece in handle.iter_batches(
                max(1, _PIECE_BYTES * rows // max(size, 1)), [index], columns, use_threads=False
            ):
                found += piece.num_rows
                yield piece
            self._check_rows(group, found)

    def _check_rows(self, group: int, found: int) -> None:
        """Older arrow ends without an error where the file does: whether that is the end of the row group, too."""
        rows = int(self.layout.group_rows[group])
        if found != rows:
            raise pa.ArrowInvalid(f"it holds {found} of its {rows} rows")

    @contextmanager
    def _opened(self, group: int) -> Iterator[tuple[pq.ParquetFile, int]]:
        file = self._file(group)
        try:
            with foreign_file(self.where(group), "row group", DataError, FIX_DAMAGED):
                self._check_unchanged(file, group)
                handle = self.handles.take(file.path, file.footer)
                try:
                    yield handle, int(self.group_index[group])
                finally:
                    self.handles.give(file.path, handle)
        except DataError as error:
            if error.__cause__ is not None:
                self._check_unchanged(file, group)  # it may have changed while it was read
            raise

    def _file(self, group: int) -> ScannedFile:
        return self.files[int(self.group_file[group])]

    def _check_unchanged(self, file: ScannedFile, group: int) -> None:
        size = file.path.stat().st_size if file.path.exists() else None
        if size != file.size:
            raise DataError(Problem("changed since the run started", self.where(group), fix=_FIX_CHANGED))

    @cached_property
    def digest(self) -> str:
        """A digest of everything that decides the order besides the files' names and rows."""
        digest = hashlib.sha256()
        for array in (self.layout.group_rows, self.layout.group_bytes, self.layout.buckets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def scan_files(path: Path) -> tuple[ScannedFile, ...]:
    """Look at all parquet files below a folder (or one file), sorted by relative name: footers, and latent shapes.

    Raises:
        DataError: nothing there, no rows at all, or files that are damaged or no parquet: all of these are named at once.
    """
    paths = [path if path.is_file() else path / name for name in _find(path)]
    with ThreadPoolExecutor(min(_SCANNERS, len(paths))) as pool:
        results = list(pool.map(scan, paths))
    problems = [problem for result in results if isinstance(result, DataError) for problem in result.problems]
    if problems:
        raise DataError(problems)
    files = [result for result in results if isinstance(result, ScannedFile)]
    if not any(file.num_rows for file in files):
        fix = "preprocess some samples into it, or point data_path elsewhere"
        raise DataError(Problem(f"its {len(files)} parquet file(s) hold no rows at all", str(path), fix=fix))
    sizes = itertools.accumulate(file.footer.serialized_size for file in files)
    return tuple(
        file if size <= _KEPT_FOOTERS else replace(file, footer=None) for file, size in zip(files, sizes, strict=True)
    )


def choose(
    root: Path,
    files: Sequence[ScannedFile],
    handles: Handles,
    wanted: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> ParquetFolder:
    """The data set as seen by who reads some of its tensors; nothing is opened.

    Args:
        root: the folder (or the one file).
        files: of `scan_files`.
        handles: of these files, shared by all who read them.
        wanted: names of the tensors to read; None for FastVideo's that are there, but pil_image.
        optional: names of tensors to read besides, where the files hold them.

    Raises:
        DataError: a name that no tensor has, a tensor that is wanted and missing or cannot be read, or files that disagree.
    """
    names = [*(_BY_DEFAULT if wanted is None else wanted), *optional]
    check_tensor_names(names)
    complete = (*names, *TENSOR_NAMES) if wanted is None else names
    problems = [problem for file in files for problem in file.reading_problems(names, complete)]
    if problems:
        raise DataError(problems)
    chosen = _choose_tensors(files, list(dict.fromkeys(names)), wanted or ())
    numbers: dict[tuple[float, ...], int] = {}
    buckets = []
    for file in files:
        shapes, of_row = file.latent_shapes(chosen)
        buckets.append(np.array([numbers.setdefault(shape, len(numbers)) for shape in shapes], np.int64)[of_row])
    return ParquetFolder(
        root=root,
        names=tuple(file.path.name if root.is_file() else file.path.relative_to(root).as_posix() for file in files),
        files=tuple(files),
        layout=Layout(
            group_rows=_joined([file.group_rows for file in files]),
            group_bytes=_joined([file.group_bytes for file in files]),
            buckets=_joined(buckets),
        ),
        group_file=_joined([[i] * len(file.group_rows) for i, file in enumerate(files)]),
        group_index=_joined([range(len(file.group_rows)) for file in files]),
        tensors=chosen,
        metadata=tuple(name for name in METADATA_TYPES if any(name in file.columns for file in files)),
        normalised=_agreed_normalisation(files, chosen),
        handles=handles,
    )


class Handles:
    """Open files that no thread is using, so that a footer is not parsed for every row group."""

    def __init__(self) -> None:
        self._free: OrderedDict[int, tuple[Path, pq.ParquetFile]] = OrderedDict()
        self._lock = Lock()

    def take(self, path: Path, footer: Any) -> pq.ParquetFile:
        """A file of its own for the caller, whose footer is parsed where it was not kept."""
        with self._lock:
            for key, (name, handle) in self._free.items():
                if name == path:
                    del self._free[key]
                    return handle
        # Not memory-mapped: a mapped file that shrinks ends the process.
        return pq.ParquetFile(path, metadata=footer, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def give(self, path: Path, handle: pq.ParquetFile) -> None:
        """Take back what `take` gave."""
        with self._lock:
            self._free[id(handle)] = (path, handle)
            if len(self._free) > _OPEN_FILES:
                self._free.popitem(last=False)[1][1].close()

    def close(self) -> None:
        """Close what no thread is using; files are opened again when they are asked for."""
        with self._lock:
            while self._free:
                self._free.popitem()[1][1].close()


def _find(path: Path) -> list[str]:
    if path.is_file():
        return [path.name]
    if not path.exists():
        raise DataError(Problem("there is no such file or folder", str(path), fix=_FIX_EMPTY))
    found = [file.relative_to(path).as_posix() for file in files_below(path) if file.suffix.lower() == ".parquet"]
    if not found:
        raise DataError(Problem("there is no *.parquet file in or below the folder", str(path), fix=_FIX_EMPTY))
    return sorted(found)


def _choose_tensors(files: Sequence[ScannedFile], names: Sequence[str], wanted: Collection[str]) -> tuple[str, ...]:
    """Those of `names` that all files hold; some or all of them must hold those that are wanted, and none may stand alone."""
    problems = []
    chosen = []
    for name in names:
        without = [file for file in files if name not in file.present()]
        if not without:
            chosen.append(name)
        elif name in wanted or len(without) < len(files):
            available = without[0].present()
            column = tensor_columns(name)[0]
            found = f"holds no tensor {name}"
            if len(without) < len(files):
                found += ", but other files do"
            elif column not in without[0].columns:
                found += f" (it has no column {column})"
            else:
                found += f" ({column} is empty in every row)"
            fix = f"preprocess the samples again with an encoder that makes {name}, or give another data set"
            having = [file.path.parent for file in files if name in file.present()]
            if having:
                fix = f"write {name} into every file, or keep files with and without it in separate folders"
            if having and not set(having) & {file.path.parent for file in without}:
                fix = f"give one of their folders as the data: {having[0]} or {without[0].path.parent}"
            problems.append(Problem(found, str(without[0].path), f"it holds {', '.join(available)}", fix))
    if problems:
        raise DataError(problems)
    return tuple(chosen)


def _agreed_normalisation(files: Sequence[ScannedFile], tensors: Sequence[str]) -> dict[str, bool]:
    first, *others = files
    for name in tensors:
        for file in others:
            if file.normalised.get(name) != first.normalised.get(name):
                state, of_first = _state(file, name), _state(first, name)
                found = f"{name} is {state} here, but {of_first} in {first.path}"
                fix = "keep them in separate folders, or preprocess one of them again"
                raise DataError(Problem(found, str(file.path), fix=fix))
    return {name: first.normalised[name] for name in tensors if name in first.normalised}


def _state(file: ScannedFile, name: str) -> str:
    if name not in file.normalised:
        return "not said to be normalised or not"
    state = "normalised" if file.normalised[name] else "not normalised"
    return state if file.says_normalised else f"taken to be {state} (the file does not say)"


def _joined(parts: Sequence[Sequence[int] | range | IntArray]) -> IntArray:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])
