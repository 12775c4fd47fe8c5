"""From arrow rows to a batch: every row is checked and copied, once, from arrow's memory to its place in the batch."""

from __future__ import annotations

import errno
import math
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.loading.batch_buffers import BatchMemory, Bytes
from fastvideo_data.loading.columns import ByteStrings
from fastvideo_data.loading.parquet_folder import ParquetFolder
from fastvideo_data.schema import DTYPES, bytes_of, check_payload, dtype_name, tensor_columns

_REPEATED = 1.5
"""Tensors that hold so many times the bytes of their row group in the file have values that are stored once for many rows."""
_HUGE = 1 << 40


class Payload(NamedTuple):
    """A stored tensor: its bytes (in the memory of its batch where `placed`), shape and dtype name."""

    data: Bytes
    shape: tuple[int, ...]
    dtype: str
    placed: bool = False

    def to_tensor(self) -> Tensor:
        """The tensor, copied out."""
        out = torch.empty(self.shape, dtype=DTYPES[self.dtype])
        bytes_of(out)[:] = self.data
        return out


class Place(NamedTuple):
    """Where a row is stored, written out only for an error."""

    folder: ParquetFolder
    group: int
    row: int

    def __str__(self) -> str:
        return self.folder.where(self.group, self.row)


class Row(NamedTuple):
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
        DataError: the file changed since the run started, or something else than its content is to blame.
    """
    try:
        return decode_rows(folder, group, rows, slots, memory, tolerant=True)
    except DataError as error:
        if not _is_damage(error.__cause__):
            raise
        return [BadRow(error)] * len(rows)


def _is_damage(cause: BaseException | None) -> bool:
    """Whether the content of a file is to blame; not a lack of memory, of open files or of rights."""
    if isinstance(cause, OSError):
        return cause.errno in (None, errno.EIO)  # arrow's own errors have no number
    return cause is not None and not isinstance(cause, MemoryError)


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
    details = folder.details(group)
    told = [_told(name, *(details[part] for part in tensor_columns(name)[1:])) for name in folder.tensors]
    absent = [None] * int(folder.layout.group_rows[group])
    infos = [details.get(name, absent) for name in folder.metadata]
    if (straight := _read_straight(folder, group, rows, slots, memory, told)) is not None:
        return [
            Row(
                {name: payloads[i] for name, payloads in straight.items()},
                {name: column[row] for name, column in zip(folder.metadata, infos, strict=True)},
                Place(folder, group, row),
            )
            for i, row in enumerate(rows)
        ]
    decoded: list[Row | BadRow] = []
    size = sum(one.size for of_rows in told for one in of_rows if one)
    known: dict[bytes, bytes] | None = {} if size > _REPEATED * folder.layout.group_bytes[group] else None
    stored = [(name, *tensor_columns(name)) for name in folder.tensors]
    said = [(details[shapes], details[dtypes]) for _, _, shapes, dtypes in stored]
    checked: dict[tuple[Any, ...], tuple[tuple[int, ...], str]] = {}
    start = 0
    for piece in folder.payloads(group, size):
        end = start + piece.num_rows
        first, last = bisect_left(rows, start), bisect_left(rows, end)
        with foreign_file(folder.where(group), "column of bytes"):
            payloads = [ByteStrings(piece.column(column)) for _, column, _, _ in stored]
        for row, slot in zip(rows[first:last], slots[first:last], strict=True):
            where = Place(folder, group, row)
            try:
                tensors = {}
                for (name, *_), payload, (shapes, dtypes) in zip(stored, payloads, said, strict=True):
                    view, shape, dtype = payload.view(row - start), shapes[row], dtypes[row]
                    length = None if view is None else len(view)
                    key = (length, dtype, *(shape or ()))
                    if (whole := checked.get(key)) is None:
                        whole = checked[key] = check_payload(name, length, shape, dtype, where=where)
                    assert view is not None
                    tensors[name] = _payload(name, view, *whole, slot, memory, known)
            except DataError as error:
                if not tolerant:
                    raise
                decoded.append(BadRow(error))
                continue
            info = dict(zip(folder.metadata, (column[row] for column in infos), strict=True))
            decoded.append(Row(tensors, info, where))
        if last == len(rows):
            break
        start = end
    return decoded


def assemble(folder: ParquetFolder, rows: Sequence[Row], batch: int, memory: BatchMemory) -> dict[str, Any]:
    """The raw batch of its rows: every tensor stacked, `info`, and of latents X `X_normalised`.

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
    made.update({f"{name}_normalised": state for name, state in folder.normalised.items()})
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
    if placed is not None and all(payload.placed and payload.dtype == payloads[0].dtype for payload in payloads):
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


class _Told(NamedTuple):
    """What a row's shape and dtype tell of a tensor."""

    size: int
    shape: tuple[int, ...]
    dtype: str


def _told(name: str, shapes: Sequence[Sequence[int] | None], dtypes: Sequence[str | None]) -> list[_Told | None]:
    """For each row what its shape and dtype tell; None where they make no sense, or only together with the bytes."""
    known: dict[tuple[Any, ...], _Told | None] = {}
    found = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        key = (dtype, *(shape or ()))
        if key not in known:
            known[key] = None
            if shape and dtype and None not in shape and 0 < math.prod(shape) < _HUGE and (named := dtype_name(dtype)):
                size = int(math.prod(shape)) * DTYPES[named].itemsize
                with suppress(DataError):
                    known[key] = _Told(size, *check_payload(name, size, shape, dtype, where=""))
        found.append(known[key])
    return found


def _read_straight(
    folder: ParquetFolder,
    group: int,
    rows: Sequence[int],
    slots: Sequence[int],
    memory: BatchMemory,
    told: Sequence[Sequence[_Told | None]],
) -> dict[str, list[Payload]] | None:
    """For each tensor its payloads of some rows, read from the file to their places; None where pyarrow has to read them."""
    known = [[one for one in of_rows if one] for of_rows in told]
    if any(len(some) < len(of_rows) for some, of_rows in zip(known, told, strict=True)):
        return None
    payloads: dict[str, list[Payload]] = {}

    def places() -> list[list[tuple[int, Bytes]]]:
        for name, of_rows in zip(folder.tensors, known, strict=True):
            payloads[name] = _places(name, [of_rows[row] for row in rows], slots, memory)
        return [[(row, payload.data) for row, payload in zip(rows, some, strict=True)] for some in payloads.values()]

    return payloads if folder.read_straight(group, [[one.size for one in some] for some in known], places) else None


def _places(name: str, told: Sequence[_Told], slots: Sequence[int], memory: BatchMemory) -> list[Payload]:
    """Payloads still without content: in their batches, or side by side where rows of a batch differ in size."""
    places = [memory.row(slot, name, one.size) for slot, one in zip(slots, told, strict=True)]
    loose = sum(one.size for one, place in zip(told, places, strict=True) if place is None)
    free = memory.loose(loose) if loose else None
    payloads = []
    for one, place in zip(told, places, strict=True):
        if place is None:
            assert free is not None
            place, free = free[: one.size], free[one.size :]
            payloads.append(Payload(place, one.shape, one.dtype))
        else:
            payloads.append(Payload(place, one.shape, one.dtype, placed=True))
    return payloads


def _payload(
    name: str,
    view: Bytes,
    shape: tuple[int, ...],
    dtype: str,
    slot: int,
    memory: BatchMemory,
    known: dict[bytes, bytes] | None,
) -> Payload:
    """A tensor in its place of its batch; or, where values repeat (`known` has those so far), one copy that rows share."""
    if known is not None:
        value = view.tobytes()
        return Payload(np.frombuffer(known.setdefault(value, value), np.uint8), shape, dtype)
    place = memory.row(slot, name, len(view)) if len(view) else None
    if place is None:
        return Payload(view, shape, dtype)
    place[:] = view
    return Payload(place, shape, dtype, placed=True)
