"""A folder of parquet files, opened: checked as a whole, then read one row group at a time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.loading.dataset_scan import FIX_DAMAGED, NEVER_BY_DEFAULT, ScannedFile, scan
from fastvideo_data.loading.epoch_order import IntArray, Layout
from fastvideo_data.preprocessing.folder_walk import files_below
from fastvideo_data.schema import LATENTS, METADATA_TYPES, TENSOR_NAMES, tensor_columns

_OPEN_FILES = 32
_BUFFER_BYTES = 64 << 10
_PIECE_BYTES = 3 << 20
_SCANNERS = 8
_FIX_EMPTY = "write a data set with: fastvideo-distill preprocess, or correct the path"
_FIX_CHANGED = "do not change a data set while it is in use; start the run again"


@dataclass(frozen=True)
class EncodedBy:
    """The encoders that made some files of a data set.

    Args:
        file: the first of these files.
        encoder: the encoders, as `LatentEncoder.describe` says it; None where the files do not tell.
    """

    file: Path
    encoder: Mapping[str, str] | None


@dataclass(frozen=True)
class ParquetFolder:
    """An opened data set.

    Args:
        root: the folder (or the one file).
        names: relative names of its files, sorted.
        file_rows: rows of each file.
        file_bytes: size of each file.
        contents: a digest of each file, see `ScannedFile`.
        layout: row groups and latent shapes, numbered through all files.
        group_file: for each row group, the number of its file.
        group_index: for each row group, its number inside its file.
        tensors: names of the tensors to read.
        metadata: names of the metadata columns that the files hold.
        normalised: for each of its tensors that are latents, whether they are normalised.
        unsaid: a file that does not say so itself, if there is one.
        encoders: every different description of encoders that the files hold.
    """

    root: Path
    names: tuple[str, ...]
    file_rows: tuple[int, ...]
    file_bytes: tuple[int, ...]
    contents: tuple[str, ...]
    layout: Layout
    group_file: IntArray
    group_index: IntArray
    tensors: tuple[str, ...]
    metadata: tuple[str, ...]
    normalised: Mapping[str, bool]
    unsaid: Path | None
    encoders: tuple[EncodedBy, ...]
    _handles: _Handles = field(default_factory=lambda: _Handles(), repr=False, compare=False)

    def path(self, file: int) -> Path:
        """The path of a file by its number."""
        return self.root if self.root.is_file() else self.root / self.names[file]

    def where(self, group: int, row: int | None = None) -> str:
        """How an error names a row group, or a row in it: file and number inside the file."""
        path = self.path(int(self.group_file[group]))
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
        path = self.path(int(self.group_file[group]))
        try:
            with foreign_file(self.where(group), "row group", DataError, FIX_DAMAGED):
                self._check_unchanged(path, group)
                handle = self._handles.take(path)
                try:
                    yield handle, int(self.group_index[group])
                finally:
                    self._handles.give(path, handle)
        except DataError as error:
            if error.__cause__ is not None:
                self._check_unchanged(path, group)  # it may have changed while it was read
            raise

    def _check_unchanged(self, path: Path, group: int) -> None:
        size = path.stat().st_size if path.exists() else None
        if size != self.file_bytes[self.group_file[group]]:
            raise DataError(Problem("changed since the run started", self.where(group), fix=_FIX_CHANGED))

    @cached_property
    def digest(self) -> str:
        """A digest of everything that decides the order besides the files' names and rows."""
        digest = hashlib.sha256()
        for array in (self.layout.group_rows, self.layout.group_bytes, self.layout.buckets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def open_folder(path: Path, tensors: Sequence[str] | None = None, *, unread: Collection[str] = ()) -> ParquetFolder:
    """Open all parquet files below a folder (or one file), sorted by relative name; reads footers and latent shapes.

    Args:
        path: folder or file.
        tensors: names of the tensors to read; None for all known ones that are there, but pil_image.
        unread: names of tensors that are as if they were not there; files with and without them then go together.

    Raises:
        DataError: nothing there, no rows at all, a file that is damaged or no parquet, files that disagree, or missing
            columns; all files that are wrong are named at once.
    """
    names = _find(path)
    paths = [path if path.is_file() else path / name for name in names]
    with ThreadPoolExecutor(min(_SCANNERS, len(paths))) as pool:
        results = list(pool.map(lambda file: scan(file, tensors, unread), paths))
    problems = [problem for result in results if isinstance(result, DataError) for problem in result.problems]
    if problems:
        raise DataError(problems)
    files = [result for result in results if isinstance(result, ScannedFile)]
    if not any(len(file.buckets) for file in files):
        fix = "preprocess some samples into it, or point data_path elsewhere"
        raise DataError(Problem(f"its {len(files)} parquet file(s) hold no rows at all", str(path), fix=fix))
    chosen = _choose_tensors(files, tensors)
    numbers: dict[tuple[float, ...], int] = {}
    buckets = [np.array([numbers.setdefault(s, len(numbers)) for s in f.shapes], np.int64)[f.buckets] for f in files]
    return ParquetFolder(
        root=path,
        names=tuple(names),
        file_rows=tuple(len(file.buckets) for file in files),
        file_bytes=tuple(file.size for file in files),
        contents=tuple(file.contents for file in files),
        layout=Layout(
            group_rows=_joined([file.group_rows for file in files]),
            group_bytes=_joined([file.group_bytes for file in files]),
            buckets=_joined(buckets),
        ),
        group_file=_joined([[i] * len(file.group_rows) for i, file in enumerate(files)]),
        group_index=_joined([range(len(file.group_rows)) for file in files]),
        tensors=chosen,
        metadata=tuple(name for name in METADATA_TYPES if any(name in file.columns for file in files)),
        normalised=_agreed_normalisation(files, [name for name in LATENTS if name in chosen]),
        unsaid=next((file.path for file in files if not file.says_normalised), None),
        encoders=_different_encoders(files),
    )


class _Handles:
    """Open files that no thread is using, so that a footer is not parsed for every row group."""

    def __init__(self) -> None:
        self._free: OrderedDict[int, tuple[Path, pq.ParquetFile]] = OrderedDict()
        self._lock = Lock()

    def take(self, path: Path) -> pq.ParquetFile:
        with self._lock:
            for key, (name, handle) in self._free.items():
                if name == path:
                    del self._free[key]
                    return handle
        # Not memory-mapped: a mapped file that shrinks ends the process.
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def give(self, path: Path, handle: pq.ParquetFile) -> None:
        with self._lock:
            self._free[id(handle)] = (path, handle)
            if len(self._free) > _OPEN_FILES:
                self._free.popitem(last=False)[1][1].close()


def _find(path: Path) -> list[str]:
    if path.is_file():
        return [path.name]
    if not path.exists():
        raise DataError(Problem("there is no such file or folder", str(path), fix=_FIX_EMPTY))
    found = [file.relative_to(path).as_posix() for file in files_below(path) if file.suffix.lower() == ".parquet"]
    if not found:
        raise DataError(Problem("there is no *.parquet file in or below the folder", str(path), fix=_FIX_EMPTY))
    return sorted(found)


def _choose_tensors(files: Sequence[ScannedFile], wanted: Sequence[str] | None) -> tuple[str, ...]:
    names = list(wanted) if wanted is not None else [n for n in TENSOR_NAMES if n not in NEVER_BY_DEFAULT]
    problems = []
    chosen = []
    for name in names:
        without = [file for file in files if name not in file.tensors]
        if not without:
            chosen.append(name)
        elif wanted is not None or len(without) < len(files):
            available = without[0].tensors
            found = f"holds no tensor {name}" + ("" if len(without) == len(files) else ", but other files do")
            having = [file.path.parent for file in files if name in file.tensors]
            fix = f"write {name} into every file, or keep files with and without it in separate folders"
            if having and not set(having) & {file.path.parent for file in without}:
                fix = f"give one of their folders as the data: {having[0]} or {without[0].path.parent}"
            problems.append(Problem(found, str(without[0].path), f"it holds {', '.join(available)}", fix))
    if problems:
        raise DataError(problems)
    return tuple(chosen)


def _different_encoders(files: Sequence[ScannedFile]) -> tuple[EncodedBy, ...]:
    found: list[EncodedBy] = []
    for file in files:
        if all(file.encoder != other.encoder for other in found):
            found.append(EncodedBy(file.path, file.encoder))
    return tuple(found)


def _agreed_normalisation(files: Sequence[ScannedFile], latents: Sequence[str]) -> dict[str, bool]:
    first, *others = files
    for name in latents:
        for file in others:
            if file.normalised[name] != first.normalised[name]:
                state, of_first = _state(file, name), _state(first, name)
                found = f"{name} is {state} here, but {of_first} in {first.path}"
                fix = "keep them in separate folders, or preprocess one of them again"
                raise DataError(Problem(found, str(file.path), fix=fix))
    return {name: first.normalised[name] for name in latents}


def _state(file: ScannedFile, name: str) -> str:
    state = "normalised" if file.normalised[name] else "not normalised"
    return state if file.says_normalised else f"taken to be {state} (the file does not say)"


def _joined(parts: Sequence[Sequence[int] | range | IntArray]) -> IntArray:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])
