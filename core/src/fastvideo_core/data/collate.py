"""From arrow rows to a batch: rows stay views on arrow's memory until they are copied, once, into the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from fastvideo_core.data.folder import ParquetFolder
from fastvideo_core.data.schema import DTYPES, bytes_of, check_payload, tensor_columns
from fastvideo_core.errors import DataError, Problem


@dataclass(frozen=True)
class Payload:
    """A stored tensor: its bytes (a view on arrow's memory, or a copy), shape and dtype name."""

    data: npt.NDArray[np.uint8]
    shape: tuple[int, ...]
    dtype: str

    def to_tensor(self) -> Tensor:
        """The tensor, copied out."""
        out = torch.empty(self.shape, dtype=DTYPES[self.dtype])
        bytes_of(out)[:] = self.data
        return out


@dataclass(frozen=True)
class Row:
    """One decoded sample: its tensors, its metadata, and how an error names it."""

    tensors: dict[str, Payload]
    info: dict[str, Any]
    where: str


def decode_rows(folder: ParquetFolder, group: int, rows: Sequence[int], keep: Sequence[bool]) -> list[Row]:
    """Read a row group and decode some of its rows.

    Args:
        folder: the data set.
        group: number of the row group.
        rows: numbers inside the row group; repeats are allowed.
        keep: whether a row outlives its neighbours, and so must not hold on to the row group's memory.

    Raises:
        DataError: the row group cannot be read, or a row's bytes, shape and dtype do not fit together.
    """
    table = folder.read(group)
    sparse = 2 * len(rows) < table.num_rows
    info = {name: table.column(name) for name in folder.metadata if name in table.column_names}
    decoded = []
    payloads = {name: _Payloads(table, name) for name in folder.tensors}
    for row, kept in zip(rows, keep, strict=True):
        where = folder.where(group, row)
        tensors = {name: payload.get(row, copy=sparse or kept, where=where) for name, payload in payloads.items()}
        values = {name: info[name][row].as_py() if name in info else None for name in folder.metadata}
        decoded.append(Row(tensors, values, where))
    return decoded


def assemble(folder: ParquetFolder, rows: Sequence[Row]) -> dict[str, Any]:
    """The raw batch of some rows: every tensor stacked, `info` and `latents_normalised`.

    Raises:
        DataError: the rows cannot go into one batch.
    """
    batch: dict[str, Any] = {}
    for name in folder.tensors:
        batch.update(stack(name, rows))
    batch["info"] = [row.info for row in rows]
    batch["latents_normalised"] = folder.latents_normalised
    return batch


def stack(name: str, rows: Sequence[Row]) -> dict[str, Tensor]:
    """Stack tensor `name` of all rows into [B, ...].

    A 2-D tensor [L, D] is zero-padded to the longest L and comes with `{name}_length`, int64 [B]. Floating dtypes that
    differ give the smallest dtype that holds them all exactly.

    Raises:
        DataError: the shapes, or the dtypes, cannot go into one batch.
    """
    payloads = [row.tensors[name] for row in rows]
    first = payloads[0]
    ragged = len(first.shape) == 2
    for row, payload in zip(rows, payloads, strict=True):
        same_rank = len(payload.shape) == len(first.shape)
        if not same_rank or (payload.shape[1:] != first.shape[1:] if ragged else payload.shape != first.shape):
            raise _cannot_stack(f"{name} has shape {list(payload.shape)}, but {list(first.shape)} in", row, rows[0])
        if payload.dtype != first.dtype and not _both_floating(payload.dtype, first.dtype):
            raise _cannot_stack(f"{name} has dtype {payload.dtype}, but {first.dtype} in", row, rows[0])
    lengths = [payload.shape[0] for payload in payloads] if ragged else []
    shape = (max(lengths), first.shape[1]) if ragged else first.shape
    out = _stacked(payloads, shape)
    return {name: out, f"{name}_length": torch.tensor(lengths)} if ragged else {name: out}


def _stacked(payloads: Sequence[Payload], shape: tuple[int, ...]) -> Tensor:
    dtype = DTYPES[payloads[0].dtype]
    if any(payload.dtype != payloads[0].dtype for payload in payloads):
        for payload in payloads:
            dtype = torch.promote_types(dtype, DTYPES[payload.dtype])
        payloads = [_converted(payload, dtype) for payload in payloads]
    row_bytes = math.prod(shape) * dtype.itemsize
    # numpy's memory rather than torch's: numpy asks for huge pages, and its copies never wake torch's thread pool.
    out = np.empty((len(payloads), row_bytes), np.uint8)
    for target, payload in zip(out, payloads, strict=True):
        target[: len(payload.data)] = payload.data
        target[len(payload.data) :] = 0
    return torch.from_numpy(out.reshape(-1)).view(dtype).reshape(len(payloads), *shape)


def _converted(payload: Payload, dtype: torch.dtype) -> Payload:
    return Payload(bytes_of(payload.to_tensor().to(dtype)), payload.shape, payload.dtype)


def _both_floating(a: str, b: str) -> bool:
    return DTYPES[a].is_floating_point and DTYPES[b].is_floating_point


def _cannot_stack(what: str, row: Row, first: Row) -> DataError:
    fix = "one batch needs equal sizes: keep such samples in separate folders, or preprocess them alike"
    return DataError(Problem(f"{what} {first.where}", row.where, fix=fix))


class _Payloads:
    """The three columns of one tensor in one row group; bytes are viewed in place."""

    def __init__(self, table: pa.Table, name: str) -> None:
        data, shape, dtype = tensor_columns(name)
        self._name = name
        self._chunks = [
            _BinaryChunk(chunk) for chunk in table.column(data).cast(pa.large_binary()).chunks if len(chunk)
        ]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._shapes = table.column(shape).to_pylist()
        self._dtypes = table.column(dtype).to_pylist()

    def get(self, row: int, *, copy: bool, where: str) -> Payload:
        at = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[at]
        view = chunk.view(row - int(self._ends[at]) + len(chunk))
        shape, dtype = self._shapes[row], self._dtypes[row]
        check_payload(self._name, None if view is None else len(view), shape, dtype, where=where)
        assert view is not None
        return Payload(view.copy() if copy else view, tuple(shape), dtype)


class _BinaryChunk:
    """One contiguous arrow array of byte strings (arrow's own scalars would copy every one of them)."""

    def __init__(self, array: pa.LargeBinaryArray) -> None:
        _, offsets, data = array.buffers()
        self._offsets = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        self._data = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self._valid = array.is_valid().to_pylist() if array.null_count else [True] * len(array)

    def __len__(self) -> int:
        return len(self._valid)

    def view(self, row: int) -> npt.NDArray[np.uint8] | None:
        return self._data[self._offsets[row] : self._offsets[row + 1]] if self._valid[row] else None
