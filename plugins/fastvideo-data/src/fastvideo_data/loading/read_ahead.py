"""How a plan becomes batches: row groups are decoded one unit ahead, and batches are assembled in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fastvideo_data.loading.batch_buffers import BatchMemory, MemoryPool
from fastvideo_data.loading.collate import BadRow, Row, assemble, decode_good_rows, decode_rows
from fastvideo_data.loading.epoch_order import EpochPlan, IntArray
from fastvideo_data.loading.parquet_folder import ParquetFolder
from fastvideo_data.loading.replacement_rows import replace_bad_rows

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Result(Protocol[T_co]):
    def result(self) -> T_co: ...


class Ticket(Protocol):
    """A batch that is being made."""

    def result(self) -> ReadBatch:
        """Wait for the batch; raises what making it raised."""
        ...


@dataclass(frozen=True)
class ReadBatch:
    """A batch, and the rows for which others stand in it because they are damaged."""

    data: dict[str, Any]
    bad_rows: tuple[BadRow, ...]


class InlineExecutor:
    """The executor without threads: work is done by whoever asks for its result, once."""

    def submit(self, fn: Callable[..., T], /, *args: Any) -> _Deferred[T]:
        """Remember the call until its result is asked for."""
        return _Deferred(fn, args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """There is nothing to end."""


class _Deferred(Generic[T]):
    def __init__(self, fn: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._call: tuple[Callable[..., T], tuple[Any, ...]] | None = (fn, args)
        self._value: list[T] = []

    def result(self) -> T:
        if self._call is not None:
            fn, args = self._call
            self._value.append(fn(*args))
            self._call = None
        return self._value[0]


class _Rows:
    """Decoded rows of one row group, each of which is used once and forgotten."""

    def __init__(self, rows: list[Row | BadRow]) -> None:
        self._rows: list[Row | BadRow | None] = [*rows]

    def take(self, index: int) -> Row | BadRow:
        row, self._rows[index] = self._rows[index], None
        assert row is not None, "a decoded row was used twice"
        return row


@dataclass(frozen=True)
class _Piece:
    """What a unit needs of one row group: for each slot (a place in a batch), a row."""

    group: int
    slots: list[int]
    rows: list[int]


@dataclass(frozen=True)
class _Unit:
    pieces: list[_Piece]
    batches: range


def stream_batches(
    folder: ParquetFolder,
    plan: EpochPlan,
    start: int,
    executor: InlineExecutor | ThreadPoolExecutor,
    pool: MemoryPool,
    *,
    skip_bad_rows: bool = False,
) -> Iterator[Ticket]:
    """The batches of `plan` from number `start` on, in order; nothing is read for batches before it.

    With `skip_bad_rows` other rows stand in for damaged ones, see `repair`; else those are errors.

    While a unit's batches are asked for, the row groups of the next unit are submitted bit by bit, so that reading
    ahead neither delays a batch that is due nor holds more than two units in memory.
    """
    batch_size = plan.rows.shape[1]
    where: dict[int, tuple[_Result[_Rows], int]] = {}
    memory = BatchMemory(pool, batch_size)

    decode = decode_good_rows if skip_bad_rows else decode_rows

    def submit(piece: _Piece) -> None:
        rows = executor.submit(_decode, decode, folder, piece, memory)
        where.update({slot: (rows, i) for i, slot in enumerate(piece.slots)})

    units = _units(folder, plan, start)
    unit: _Unit | None = next(units)
    for piece in unit.pieces if unit else ():
        submit(piece)
    while unit is not None:
        upcoming = next(units, None)
        waiting = list(upcoming.pieces) if upcoming else []
        per_batch = -(-len(waiting) // max(len(unit.batches), 1))
        for batch in unit.batches:
            slots = range(batch * batch_size, (batch + 1) * batch_size)
            yield executor.submit(_assemble, folder, plan, [where.pop(slot) for slot in slots], batch, memory)
            for piece in waiting[:per_batch]:
                submit(piece)
            del waiting[:per_batch]
        for piece in waiting:
            submit(piece)
        unit = upcoming


def _units(folder: ParquetFolder, plan: EpochPlan, start: int) -> Iterator[_Unit]:
    batch_size = plan.rows.shape[1]
    rows, units = plan.rows[start:].ravel(), plan.units[start:].ravel()
    ready = np.maximum.accumulate(plan.units[start:].max(axis=1))
    starts = folder.layout.group_starts
    order = np.lexsort((rows, units))
    for slots in _runs(order, units[order]):
        unit = units[slots[0]]
        groups = np.searchsorted(starts, rows[slots], side="right") - 1
        pieces = [
            _Piece(
                group=(group := int(np.searchsorted(starts, rows[some[0]], side="right")) - 1),
                slots=(some + start * batch_size).tolist(),
                rows=(rows[some] - starts[group]).tolist(),
            )
            for some in _runs(slots, groups)
        ]
        first, last = np.searchsorted(ready, [unit, unit + 1])
        yield _Unit(pieces, range(start + int(first), start + int(last)))


def _runs(values: IntArray, keys: IntArray) -> list[IntArray]:
    return np.split(values, np.flatnonzero(np.diff(keys)) + 1)


_Decode = Callable[[ParquetFolder, int, Sequence[int], Sequence[int], BatchMemory], "list[Row | BadRow]"]


def _decode(decode: _Decode, folder: ParquetFolder, piece: _Piece, memory: BatchMemory) -> _Rows:
    return _Rows(decode(folder, piece.group, piece.rows, piece.slots, memory))


def _assemble(
    folder: ParquetFolder,
    plan: EpochPlan,
    slots: Sequence[tuple[_Result[_Rows], int]],
    batch: int,
    memory: BatchMemory,
) -> ReadBatch:
    rows = [result.result().take(index) for result, index in slots]
    bad = tuple(row for row in rows if isinstance(row, BadRow))
    good = replace_bad_rows(folder, plan, batch, rows, memory) if bad else [r for r in rows if isinstance(r, Row)]
    return ReadBatch(assemble(folder, good, batch, memory), bad)
