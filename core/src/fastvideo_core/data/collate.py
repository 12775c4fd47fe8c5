"""From arrow rows to a batch: every row is checked and copied, once, from arrow's memory to its place in the batch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fastvideo_core.data.folder import ParquetFolder
from fastvideo_core.data.memory import BatchMemory, Bytes
from fastvideo_core.data.schema import DTYPES, bytes_of, check_payload, tensor_columns
from fastvideo_core.errors import DataError, Problem


@dataclass(frozen=True)
class Payload:
    """A stored tensor: its bytes (in the memory of its batch, or still in arrow's), shape and dtype name."""

    data: Bytes
    shape: tuple[int, ...]
    dtype: str

    def to_tensor(self) -> Tensor:
        """The tensor, copied out."""
        out = torch.empty(self.shape, dtype=DTYPES[self.dtype])
        bytes_of(out)[:] = self.data
        return out


@dataclass(frozen=True)
class Place:
    """Where a row is stored, written out only for an error."""

    folder: ParquetFolder
    group: int
    row: int

    def __str__(self) -> str:
        return self.folder.where(self.group, self.row)


@dataclass(frozen=True)
class Row:
    """One decoded sample: its tensors, its metadata, and how an error names it."""

    tensors: dict[str, Payload]
    info: dict[str, Any]
    where: Place


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    error: DataError


def decode_good_rows(
    folder: ParquetFolder, group: int, rows: Sequence[int], slots: Sequence[int], memory: BatchMemory
) -> list[Row | BadRow]:
    """Like `decode_rows`, with a BadRow for every row that is damaged, all of them where the row group cannot be read.

    Raises:
        DataError: the file changed since the run started.
    """
    try:
        return decode_rows(folder, group, rows, slots, memory, tolerant=True)
    except DataError as error:
        if not isinstance(error.__cause__, (pa.ArrowException, OSError)):
            raise
        return [BadRow(error)] * len(rows)


def decode_rows(
    folder: ParquetFolder,
    group: int,
    rows: Sequence[int],
    slots: Sequence[int],
    memory: BatchMemory,
    *,
    tolerant: bool = False,
) -> list[Row | BadRow]:
    """Read a row group and decode some of its rows.

    Args:
        folder: the data set.
        group: number of the row group.
        rows: numbers inside the row group, ascending; repeats are allowed.
        slots: where each row goes: batch * batch_size + place in the batch.
        memory: of the batches.
        tolerant: give a BadRow for a row whose bytes, shape and dtype do not fit together.

    Raises:
        DataError: the row group cannot be read, or a row is bad and `tolerant` is false.
    """
    decoded: list[Row | BadRow] = []
    details = folder.details(group)
    start = 0
    for piece in folder.payloads(group):
        end = start + piece.num_rows
        first, last = bisect_left(rows, start), bisect_left(rows, end)
        payloads = {name: _Binary(piece.column(tensor_columns(name)[0])) for name in folder.tensors}
        for row, slot in zip(rows[first:last], slots[first:last], strict=True):
            where = Place(folder, group, row)
            try:
                tensors = {
                    name: _payload(name, payload.view(row - start), details, row, slot, memory, where)
                    for name, payload in payloads.items()
                }
            except DataError as error:
                if not tolerant:
                    raise
                decoded.append(BadRow(error))
                continue
            info = {name: details[name][row] if name in details else None for name in folder.metadata}
            decoded.append(Row(tensors, info, where))
        if last == len(rows):
            break
        start = end
    return decoded


def assemble(folder: ParquetFolder, rows: Sequence[Row], batch: int, memory: BatchMemory) -> dict[str, Any]:
    """The raw batch of its rows: every tensor stacked, `info` and `latents_normalised`.

    Args:
        folder: the data set.
        rows: of the batch, in the order of their slots.
        batch: its number.
        memory: which the rows were decoded into; the batch's memory is the batch's own from now on.

    Raises:
        DataError: the rows cannot go into one batch.
    """
    made: dict[str, Any] = {}
    for name in folder.tensors:
        made.update(stack(name, rows, batch, memory))
    made["info"] = [row.info for row in rows]
    made["latents_normalised"] = folder.latents_normalised
    return made


def stack(name: str, rows: Sequence[Row], batch: int, memory: BatchMemory) -> dict[str, Tensor]:
    """Stack tensor `name` of all rows of a batch into [B, ...]; rows of equal size lie there already.

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
    out = _stacked(payloads, shape, memory.take(batch, name), memory)
    return {name: out, f"{name}_length": torch.tensor(lengths)} if ragged else {name: out}


def _stacked(payloads: Sequence[Payload], shape: tuple[int, ...], placed: Bytes | None, memory: BatchMemory) -> Tensor:
    dtype = DTYPES[payloads[0].dtype]
    row_bytes = math.prod(shape) * dtype.itemsize
    # `BatchMemory` took exactly the rows of the memory's own row size.
    if placed is not None and all(
        payload.dtype == payloads[0].dtype and len(payload.data) == placed.shape[1] for payload in payloads
    ):
        return torch.from_numpy(placed.reshape(-1)).view(dtype).reshape(len(payloads), *shape)
    if any(payload.dtype != payloads[0].dtype for payload in payloads):
        for payload in payloads:
            dtype = torch.promote_types(dtype, DTYPES[payload.dtype])
        payloads = [_converted(payload, dtype) for payload in payloads]
    row_bytes = math.prod(shape) * dtype.itemsize
    # numpy rather than torch: its copies never wake torch's thread pool.
    out = memory.fresh(row_bytes) if row_bytes else np.empty((len(payloads), 0), np.uint8)
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
    return DataError(Problem(f"{what} {first.where}", str(row.where), fix=fix))


def _payload(
    name: str, view: Bytes | None, details: dict[str, list[Any]], row: int, slot: int, memory: BatchMemory, where: Place
) -> Payload:
    _, shape_column, dtype_column = tensor_columns(name)
    shape, dtype = details[shape_column][row], details[dtype_column][row]
    check_payload(name, None if view is None else len(view), shape, dtype, where=where)
    assert view is not None
    place = memory.row(slot, name, len(view)) if len(view) else None
    if place is None:
        return Payload(view, tuple(shape), dtype)
    place[:] = view
    return Payload(place, tuple(shape), dtype)


class _Binary:
    """A contiguous arrow array of byte strings (arrow's own scalars would copy every one of them)."""

    def __init__(self, array: pa.BinaryArray | pa.LargeBinaryArray) -> None:
        _, offsets, data = array.buffers()
        width = np.int64 if pa.types.is_large_binary(array.type) else np.int32
        self._offsets = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1].tolist()
        self._data = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self._valid = array.is_valid().to_pylist() if array.null_count else [True] * len(array)

    def view(self, row: int) -> Bytes | None:
        return self._data[self._offsets[row] : self._offsets[row + 1]] if self._valid[row] else None
