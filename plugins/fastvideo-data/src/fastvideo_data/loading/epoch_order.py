"""The order in which a data set is read: a pure function of the seed, the epoch, the layout and what was consumed.

Per epoch the row groups are permuted and their rows strung together. Every rank takes a contiguous, equal share of
that string and shuffles it inside windows of a few row groups, so that a row group is read once and memory stays
bounded. Batches hold rows of one latent shape only and follow in the order in which their last row comes up.

An epoch may be consumed in several segments, each with its own world size and batch size: a segment orders exactly
those rows that the segments before it left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_GROUPS, _ROWS = 0, 1


@dataclass(frozen=True)
class Layout:
    """What the order needs to know of a data set; rows are numbered through all row groups of all files.

    Args:
        group_rows: rows of each row group [G].
        group_bytes: uncompressed bytes of each row group [G].
        buckets: for each row, the number of its latent shape [N].
    """

    group_rows: IntArray
    group_bytes: IntArray
    buckets: IntArray

    @property
    def num_rows(self) -> int:
        """Rows of the whole data set."""
        return len(self.buckets)

    @cached_property
    def group_starts(self) -> IntArray:
        """The number of each row group's first row, and the end [G + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.group_rows)])


@dataclass(frozen=True)
class Segment:
    """A part of an epoch: how many batches every rank consumed with this world size and batch size."""

    world_size: int
    batch_size: int
    batches: int


@dataclass(frozen=True)
class EpochPlan:
    """One rank's batches of one epoch (or of what is left of it).

    Args:
        rows: row numbers of each batch [n, B].
        units: for each of them, the unit of reading that it belongs to [n, B]: rows of a unit are read together,
            units follow each other, and a batch is complete with the last of its units.
    """

    rows: IntArray
    units: IntArray

    def __len__(self) -> int:
        return len(self.rows)


class EpochOrder:
    """The order of one epoch over all ranks.

    Args:
        layout: the data set.
        stream: what the order is drawn from: the seed and the number of the epoch, each >= 0, and more where there are
            several orders.
        window_bytes: rows are shuffled inside windows of consecutive row groups of about this many bytes.
        consumed: the segments of this epoch that were consumed already, oldest first.
    """

    def __init__(
        self, layout: Layout, *, stream: Sequence[int], window_bytes: int, consumed: Sequence[Segment] = ()
    ) -> None:
        self._layout = layout
        self._seed = tuple(stream)
        self._window_bytes = window_bytes
        self._segment = 0
        self._order = self._permuted_rows()
        self._left = self._order
        for segment in consumed:
            self._consume(segment)

    @property
    def rows_left(self) -> IntArray:
        """Rows that no segment has consumed yet, in the epoch's order."""
        return self._left

    def num_batches(self, world_size: int, batch_size: int) -> int:
        """Batches that every rank needs so that all rows that are left are seen; the same on all ranks."""
        if not len(self._left):
            return 0
        shares = (self._share(rank, world_size) for rank in range(world_size))
        counts = (np.bincount(self._layout.buckets[share]) for share in shares)
        return int(max(np.sum(-(-count // batch_size)) for count in counts))

    def plan(self, rank: int, world_size: int, batch_size: int) -> EpochPlan:
        """The batches of one rank over the rows that are left.

        A last batch that is not full is completed with rows of the rank's own share and then of the epoch's order,
        from their start; a rank that has fewer batches than others repeats its first ones.
        """
        total = self.num_batches(world_size, batch_size)
        if not total:
            return EpochPlan(np.empty((0, batch_size), np.int64), np.empty((0, batch_size), np.int64))
        rows, windows = self._shuffled(self._share(rank, world_size), rank)
        batches, units = self._batches(rows, windows, batch_size)
        own = len(batches)
        again = np.arange(own, total) % own
        # Every repeated batch is a unit of reading of its own, after all others.
        repeated_units = np.broadcast_to(units.max() + 1 + np.arange(total - own)[:, None], (total - own, batch_size))
        return EpochPlan(np.concatenate([batches, batches[again]]), np.concatenate([units, repeated_units]))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([*self._seed, *key]))

    def _permuted_rows(self) -> IntArray:
        starts, sizes = self._layout.group_starts, self._layout.group_rows
        groups = np.argsort(self._rng(_GROUPS).random(len(sizes)), kind="stable")
        sizes = sizes[groups]
        first = np.repeat(starts[groups], sizes)
        within = np.arange(self._layout.num_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.asarray(first + within, np.int64)

    def _consume(self, segment: Segment) -> None:
        if not segment.batches:
            return
        seen = np.zeros(self._layout.num_rows, bool)
        for rank in range(segment.world_size):
            seen[self.plan(rank, segment.world_size, segment.batch_size).rows[: segment.batches]] = True
        self._left = self._left[~seen[self._left]]
        self._segment += 1

    def _share(self, rank: int, world_size: int) -> IntArray:
        count = len(self._left)
        if count < world_size:  # too few rows for all: some ranks see the same one
            return self._left[[rank % count]]
        return self._left[rank * count // world_size : (rank + 1) * count // world_size]

    def _shuffled(self, share: IntArray, rank: int) -> tuple[IntArray, IntArray]:
        groups = np.searchsorted(self._layout.group_starts, share, side="right") - 1
        new_piece = np.concatenate([[True], groups[1:] != groups[:-1]])
        sizes = self._layout.group_bytes[groups[new_piece]]
        windows = ((np.cumsum(sizes) - sizes) // self._window_bytes)[np.cumsum(new_piece) - 1]
        by_chance = np.lexsort((self._rng(_ROWS, self._segment, rank).random(len(share)), windows))
        return share[by_chance], np.asarray(windows[by_chance], np.int64)

    def _batches(self, rows: IntArray, windows: IntArray, batch_size: int) -> tuple[IntArray, IntArray]:
        buckets = self._layout.buckets[rows]
        full: list[IntArray] = []
        short: list[IntArray] = []
        for bucket in np.unique(buckets):
            places = np.flatnonzero(buckets == bucket)
            whole = len(places) // batch_size * batch_size
            full.append(places[:whole].reshape(-1, batch_size))
            if whole < len(places):
                short.append(places[whole:])
        places = np.concatenate(full)
        places = places[np.argsort(places[:, -1], kind="stable")]
        found_rows, found_units = [rows[places]], [windows[places]]
        # A completed batch is a unit of its own: its fillers lie far from its other rows.
        for unit, places in enumerate(short, int(windows[-1]) + 1):
            filler = self._filler(rows[places], rows, buckets[places[0]], batch_size - len(places))
            found_rows.append(np.concatenate([rows[places], filler])[None])
            found_units.append(np.concatenate([windows[places], np.full(len(filler), unit)])[None])
        return np.concatenate(found_rows), np.concatenate(found_units)

    def _filler(self, batch: IntArray, share: IntArray, bucket: np.int64, count: int) -> IntArray:
        found = np.empty(0, np.int64)
        for source in (share, self._order):
            same = source[self._layout.buckets[source] == bucket]
            found = np.concatenate([found, same[~np.isin(same, np.concatenate([batch, found]))]])
            if len(found) >= count:
                return found[:count]
        return np.resize(np.concatenate([found, batch]), count)
