"""The memory of batches: rows are copied straight into the batch they will be in, and dropped batches' memory is reused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]


class MemoryPool:
    """Memory that comes back by itself once nothing refers to it; safe to use from several threads.

    Fresh pages have to be zeroed by the system, which costs more than copying a row into them.

    Args:
        keep_bytes: unused memory beyond this goes back to the system.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._free: dict[int, list[Bytes]] = defaultdict(list)
        self.kept_bytes = 0
        self._lock = RLock()  # reentrant: memory may come back while the collector interrupts `take`

    def take(self, size: int) -> Bytes:
        """A writable array of `size` bytes (>= 1) with any content; its memory is free again when no view of it is left."""
        step = 1 << max(size.bit_length() - 4, 0)  # rounded up by an eighth at most, so that similar sizes share memory
        capacity = -(-size // step) * step
        with self._lock:
            if self._free[capacity]:
                memory = self._free[capacity].pop()
                self.kept_bytes -= capacity
            else:
                memory = np.empty(capacity, np.uint8)  # numpy asks for huge pages, torch does not
        # Views of a numpy array refer to the array that owns the memory, not to each other, so the owner must be told
        # apart from the memory: every view of the lease, numpy's or torch's, keeps the lease alive.
        lease = memory.view(_Lease)
        lease.give_back = partial(self._give_back, memory)
        return np.frombuffer(lease.data, np.uint8, size)

    def _give_back(self, memory: Bytes) -> None:
        with self._lock:
            if self.kept_bytes + memory.size <= self._keep_bytes:
                self._free[memory.size].append(memory)
                self.kept_bytes += memory.size


class _Lease(np.ndarray[Any, np.dtype[np.uint8]]):
    """Memory that is given back when nothing refers to it."""

    give_back: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.give_back is not None:
            self.give_back()


class BatchMemory:
    """For every tensor of every batch to come, the memory [B, bytes] that its rows are written to; for several threads.

    Args:
        pool: where the memory comes from.
        batch_size: rows per batch.
    """

    def __init__(self, pool: MemoryPool, batch_size: int) -> None:
        self._pool = pool
        self._batch_size = batch_size
        self._batches: dict[tuple[int, str], Bytes] = {}
        self._lock = RLock()

    def row(self, slot: int, name: str, size: int) -> Bytes | None:
        """Where the `size` bytes of tensor `name` go in slot batch * batch_size + place; None if the batch has other sizes."""
        batch, place = divmod(slot, self._batch_size)
        rows = self._batches.get((batch, name))
        if rows is None:
            with self._lock:
                rows = self._batches.get((batch, name))
                if rows is None:
                    rows = self._batches[batch, name] = self.fresh(size)
        return rows[place] if rows.shape[1] == size else None

    def fresh(self, size: int) -> Bytes:
        """Memory [B, size] for a batch whose rows differ in size, so that `row` could not be told where they go."""
        return self._pool.take(size * self._batch_size).reshape(self._batch_size, size)

    def loose(self, size: int) -> Bytes:
        """Memory of `size` bytes (>= 1) for rows that wait for their batch."""
        return self._pool.take(size)

    def take(self, batch: int, name: str) -> Bytes | None:
        """The memory [B, bytes] of a batch's tensor, which is the caller's from now on; None if there is none."""
        with self._lock:
            return self._batches.pop((batch, name), None)
