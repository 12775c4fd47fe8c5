"""The order of one data set among several, in which all ranks have batches of the same latent shape at the same time.

Each latent shape has an order of its own, as `EpochOrder` gives it to a data set, and which shape comes when is drawn from
the seed, the epoch and the data set's number alone. Row groups whose rows have one shape are read once an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastvideo_data.loading.epoch_order import EpochOrder, EpochPlan, IntArray, Layout, Segment

_ROWS, _SHAPES = 2, 3  # EpochOrder's own streams are 0 and 1


class SharedOrder:
    """The order of one epoch over all ranks; arguments as `EpochOrder`.

    Args:
        source: number of the data set.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        seed: int,
        epoch: int,
        window_bytes: int,
        consumed: Sequence[Segment] = (),
        source: int,
    ) -> None:
        self._seed = (seed, epoch, _SHAPES, source)
        self._segment = sum(segment.batches > 0 for segment in consumed)
        self._rows = [np.flatnonzero(layout.buckets == bucket) for bucket in range(int(layout.buckets.max()) + 1)]
        self._layouts = [_only(layout, rows) for rows in self._rows]
        self._window_bytes = max(1, window_bytes // len(self._rows))
        self._stream = (seed, epoch, _ROWS, source)
        self._consumed: list[list[Segment]] = [[] for _ in self._rows]
        self._orders = self._ordered()
        for number, segment in enumerate(one for one in consumed if one.batches):
            shapes = self._shapes(segment.world_size, segment.batch_size, number)[: segment.batches]
            for bucket, count in enumerate(np.bincount(shapes, minlength=len(self._rows))):
                self._consumed[bucket].append(Segment(segment.world_size, segment.batch_size, int(count)))
            self._orders = self._ordered()

    def num_batches(self, world_size: int, batch_size: int) -> int:
        """Batches that every rank needs so that all rows that are left are seen; the same on all ranks."""
        return sum(order.num_batches(world_size, batch_size) for order in self._orders)

    def plan(self, rank: int, world_size: int, batch_size: int) -> EpochPlan:
        """The batches of one rank over the rows that are left; those of each shape are completed as `EpochOrder.plan` does."""
        shapes = self._shapes(world_size, batch_size, self._segment)
        rows, units = np.empty((2, len(shapes), batch_size), np.int64)
        first = 0
        for bucket, order in enumerate(self._orders):
            plan = order.plan(rank, world_size, batch_size)
            if len(plan):
                rows[shapes == bucket] = self._rows[bucket][plan.rows]
                units[shapes == bucket] = plan.units + first
                first += int(plan.units.max()) + 1
        return EpochPlan(rows, _by_first_use(units))

    def _ordered(self) -> list[EpochOrder]:
        return [
            EpochOrder(layout, stream=(*self._stream, bucket), window_bytes=self._window_bytes, consumed=consumed)
            for bucket, (layout, consumed) in enumerate(zip(self._layouts, self._consumed, strict=True))
        ]

    def _shapes(self, world_size: int, batch_size: int, segment: int) -> IntArray:
        """The number of the latent shape of each batch of a segment, were it to see all rows that are left."""
        counts = [order.num_batches(world_size, batch_size) for order in self._orders]
        rng = np.random.Generator(np.random.PCG64([*self._seed, segment]))
        return np.repeat(np.arange(len(counts)), counts)[np.argsort(rng.random(sum(counts)), kind="stable")]


def _only(layout: Layout, rows: IntArray) -> Layout:
    """Some rows of a data set, ascending, as a data set of their own."""
    groups = np.searchsorted(layout.group_starts, rows, side="right") - 1
    held, counts = np.unique(groups, return_counts=True)
    size = layout.group_bytes[held] * counts // layout.group_rows[held]
    return Layout(counts.astype(np.int64), size.astype(np.int64), np.zeros(len(rows), np.int64))


def _by_first_use(units: IntArray) -> IntArray:
    """Units numbered in the order in which batches [n, B] come to need them."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(units.shape)
