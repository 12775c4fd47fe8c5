"""An opened data set, read one row group at a time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.loading.batch_buffers import Bytes
from fastvideo_data.loading.epoch_order import IntArray, Layout
from fastvideo_data.loading.file_scan import FIX_DAMAGED, ScannedFile
from fastvideo_data.loading.plain_values import read_values, value_places
from fastvideo_data.schema import ROW_GROUP_BYTES, tensor_columns

_OPEN_FILES = 32
_BUFFER_BYTES = 64 << 10
_PIECE_BYTES = 3 << 20
_WHOLE_BYTES = ROW_GROUP_BYTES * 5 // 4
"""Row groups up to this size, as we write them, are read at once, which takes a sixth less time than in pieces."""
_FIX_CHANGED = "do not change a data set while it is in use; start the run again"


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

    def read_straight(
        self,
        group: int,
        sizes: Sequence[Sequence[int]],
        wanted: Callable[[], Sequence[Sequence[tuple[int, Bytes]]]],
    ) -> bool:
        """Read tensors' bytes from the file to where they belong; False where `payloads` has to read them.

        That is so where they do not lie in the file as they are, and where anything is wrong, which pyarrow then tells.

        Args:
            group: number of the row group.
            sizes: for each of `tensors`, the bytes of each row of the row group.
            wanted: asked for once it is known where the bytes lie: for each of `tensors` numbers of rows, ascending, and their
                memory.

        Raises:
            DataError: the file changed since the run started.
        """
        with self._opened(group) as (handle, index):
            footer = handle.metadata
        with suppress(OSError), open(self._file(group).path, "rb", buffering=0) as file:
            columns = [tensor_columns(name)[0] for name in self.tensors]
            found = [
                value_places(file.fileno(), footer, index, column, of_rows)
                for column, of_rows in zip(columns, sizes, strict=True)
            ]
            places = [of_rows for of_rows in found if of_rows is not None]
            return len(places) == len(found) and all(
                read_values(file.fileno(), *of_tensor) for of_tensor in zip(places, sizes, wanted(), strict=True)
            )
        return False

    def payloads(self, group: int, decoded_bytes: int = 0) -> Iterator[pa.RecordBatch]:
        """The bytes columns of `tensors` of one row group, in order: at once, or of a large one a few rows at a time.

        Such pieces are small, so that arrow uses the same memory for each of them. Safe to call from several threads.

        Args:
            group: number of the row group.
            decoded_bytes: what the columns hold when values that are stored once and repeated are counted every time.

        Raises:
            DataError: the row group cannot be read.
        """
        columns = [tensor_columns(name)[0] for name in self.tensors]
        rows, size = int(self.layout.group_rows[group]), max(int(self.layout.group_bytes[group]), decoded_bytes)
        with self._opened(group) as (handle, index):
            if size <= _WHOLE_BYTES:
                pieces = iter(handle.read_row_group(index, columns, use_threads=False).to_batches())
            else:
                at_once = max(1, _PIECE_BYTES * rows // size)
                pieces = handle.iter_batches(at_once, [index], columns, use_threads=False)
            found = 0
            for piece in pieces:
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
        try:
            size = file.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            size = None
        if size != file.size:
            raise DataError(Problem("changed since the run started", self.where(group), fix=_FIX_CHANGED))

    @cached_property
    def digest(self) -> str:
        """A digest of everything that decides the order besides the files' names and rows."""
        digest = hashlib.sha256()
        for array in (self.layout.group_rows, self.layout.group_bytes, self.layout.buckets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
