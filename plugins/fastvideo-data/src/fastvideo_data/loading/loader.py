"""The loader: an endless, shuffled, sharded and exactly resumable stream of raw batches from a parquet data set."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastvideo_core.errors import CheckpointError, DataError, Problem
from fastvideo_data.loading.batch_buffers import MemoryPool
from fastvideo_data.loading.collate import BadRow
from fastvideo_data.loading.epoch_order import EpochOrder, EpochPlan, Layout, Segment
from fastvideo_data.loading.parquet_folder import ParquetFolder
from fastvideo_data.loading.read_ahead import InlineExecutor, ReadBatch, Ticket, stream_batches
from fastvideo_data.loading.shared_order import SharedOrder

logger = logging.getLogger(__name__)

WINDOW_BYTES = 128 << 20
"""Rows are shuffled inside windows of about this size; a rank holds two windows at most."""

_NEW_DATA = (
    "or go on with what is there now by --resume latest --new-data, which keeps weights, optimizer, averages and step and "
    "starts the data afresh"
)
_STATE_KEYS = ("epoch", "segments", "seed", "window_bytes", "files", "layout")


class ParquetLoader:
    """An endless iterator of raw batches; the order depends on seed, epoch, rank, world size and data alone.

    A raw batch is a dict: each tensor X as a torch tensor [B, ...] in its stored dtype (2-D tensors [L, D] zero-padded
    to the longest, with `X_length`, int64 [B]); `X_normalised`, a bool, for each that holds latents; and `info`, a list of B
    dicts of the metadata columns. All rows of a batch have the same latent shape.

    Every epoch has another order and sees every row; the last batches are completed with rows from the epoch's start,
    so that all ranks have equally many. `state_dict` describes what was handed out, whatever was read ahead; it is the
    same on all ranks and may be loaded with another world size or batch size: the rest of the epoch is then divided
    anew.

    Args:
        folder: the data set; `DataSet.loader` makes a loader of a path.
        batch_size: rows per batch and rank, >= 1.
        seed: seed of the order, >= 0.
        rank: number of this data-parallel rank.
        size: number of data-parallel ranks.
        num_workers: threads that read ahead; 0 reads when a batch is asked for. Never changes the order.
        window_bytes: size of the windows in which rows are shuffled; bounds the memory.
        skip_bad_rows: a damaged row is logged, and the next good one of the epoch with the same latent shape stands in
            its place, always the same one; else it is an error.
        source: number of the data set among several: all ranks then have the same latent shapes in the same order, which
            other numbers have not. None is the order of a data set that is alone, in which each rank has its own.
        extras: what every batch holds besides.

    Raises:
        DataError: an argument is out of its range; damaged rows are found when they are read.
    """

    def __init__(
        self,
        folder: ParquetFolder,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
        num_workers: int = 0,
        window_bytes: int = WINDOW_BYTES,
        skip_bad_rows: bool = False,
        source: int | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        _check_arguments(batch_size, seed, rank, size, num_workers, window_bytes)
        self._folder = folder
        self._source = source
        self._extras = extras or {}
        self._seed = seed
        self._rank = rank
        self._num_workers = num_workers
        self._window_bytes = window_bytes
        self._position = _Position(0, (Segment(size, batch_size, 0),))
        self._pool = MemoryPool(keep_bytes=2 * window_bytes)
        self._running: _Running | None = None
        self._skip_bad_rows = skip_bad_rows
        self._skipped_rows = 0
        self._told: set[str] = set()

    @property
    def num_samples(self) -> int:
        """Rows of the data set, over all ranks."""
        return self._folder.layout.num_rows

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of the tensors in every batch."""
        return self._folder.tensors

    @property
    def epoch(self) -> int:
        """The epoch of the batch that was handed out last, from 0."""
        return self._position.epoch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of every rank in the current epoch when it is read from its start.

        With several latent shapes it may differ by a few between epochs.
        """
        segment = self._position.segments[-1]
        return self._order(self._position.epoch, ()).num_batches(segment.world_size, segment.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._running is None:
            # Runs ahead of the consumer, so it must not hold on to the loader: see _Running.
            order = partial(
                _order, self._folder.layout, self._seed, window_bytes=self._window_bytes, source=self._source
            )
            epochs = _planned_epochs(order, self._rank, self._position)
            self._running = _Running(
                self._num_workers, self._folder, epochs, self._pool, skip_bad_rows=self._skip_bad_rows
            )
        try:
            batch, position = self._running.next()
        except BaseException:
            self.close()
            raise
        self._position = position
        if batch.bad_rows:
            self._tell(batch.bad_rows)
        return {**batch.data, **self._extras}

    def take_skipped_rows(self) -> int | None:
        """Damaged rows of the batches handed out since the last call; None when they are errors."""
        taken, self._skipped_rows = self._skipped_rows, 0
        return taken if self._skip_bad_rows else None

    def _tell(self, bad_rows: Sequence[BadRow]) -> None:
        self._skipped_rows += len(bad_rows)
        for row in bad_rows:
            if str(row.error) not in self._told:
                self._told.add(str(row.error))
                logger.error("%s\n    another row is taken instead (training.on_bad_row: skip)", row.error)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was handed out last; plain JSON values, the same on all ranks."""
        files = list(zip(self._folder.names, self._folder.files, strict=True))
        return {
            "epoch": self._position.epoch,
            "segments": [[s.world_size, s.batch_size, s.batches] for s in self._position.segments],
            "seed": self._seed,
            "window_bytes": self._window_bytes,
            "files": {name: file.num_rows for name, file in files},
            "layout": self._folder.digest,
            "contents": {name: file.contents for name, file in files},
            **({} if self._source is None else {"source": self._source}),
        }

    @staticmethod
    def is_state(state: object) -> bool:
        """Whether it is a state of this loader, and not of a family's own."""
        return isinstance(state, dict) and set(_STATE_KEYS) <= set(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the position of `state`.

        Files that hold other data under the same names are noticed as far as `ScannedFile.contents` can tell.

        Raises:
            CheckpointError: the state is no loader's state, or the data set, the seed or the window changed since.
        """
        segments = _segments(state)
        problems = self._changes(state)
        if problems:
            raise CheckpointError(problems)
        self.close()
        now = self._position.segments[-1]
        last = segments[-1]
        if (last.world_size, last.batch_size) != (now.world_size, now.batch_size):
            segments = [s for s in segments if s.batches] + [Segment(now.world_size, now.batch_size, 0)]
        self._position = _Position(int(state["epoch"]), tuple(segments))

    def close(self) -> None:
        """Stop reading ahead and end the threads; iterating again goes on where the consumer stopped."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _order(self, epoch: int, consumed: Sequence[Segment]) -> EpochOrder | SharedOrder:
        return _order(self._folder.layout, self._seed, epoch, self._window_bytes, self._source, consumed)

    def _changes(self, state: dict[str, Any]) -> list[Problem]:
        where = str(self._folder.root)
        problems = []
        if state.get("source") != self._source:
            found = "the order of its batches is that of a source with a weight, or the checkpoint's is, and not both"
            problems.append(Problem(found, where, fix=f"give training.data_path as it was; {_NEW_DATA}"))
        for key, now in (("seed", self._seed), ("window_bytes", self._window_bytes)):
            if state[key] != now:
                found = f"the loader's {key} is {now}, but the checkpoint was made with {state[key]}"
                problems.append(Problem(found, fix=f"resume with {key} {state[key]}; {_NEW_DATA}"))
        current = self.state_dict()
        then, files = state["files"], current["files"]
        changes = [f"{name} is gone" for name in then if name not in files]
        changes += [f"{name} is new" for name in files if name not in then]
        changes += [f"{n} has {files[n]} rows, had {then[n]}" for n in files if n in then and files[n] != then[n]]
        seen = state.get("contents") or {}  # checkpoints of earlier versions have none
        other = [name for name in seen if name in files and current["contents"][name] != seen[name]]
        changes += [f"{name} holds other data" for name in other if files[name] == then.get(name)]
        if not changes and state["layout"] != current["layout"]:
            changes = ["the files were written anew, with other row groups or latent shapes"]
        if changes:
            more = f"; and {len(changes) - 5} more" if len(changes) > 5 else ""
            found = f"the data set changed since the checkpoint: {'; '.join(changes[:5])}{more}"
            problems.append(Problem(found, where, fix=f"restore the data set; {_NEW_DATA}"))
        return problems


@dataclass(frozen=True)
class _Position:
    epoch: int
    segments: tuple[Segment, ...]

    def after(self, batches: int) -> _Position:
        last = self.segments[-1]
        return _Position(self.epoch, (*self.segments[:-1], Segment(last.world_size, last.batch_size, batches)))


@dataclass(frozen=True)
class _PlannedEpoch:
    position: _Position
    plan: EpochPlan
    start: int


class _Running:
    """Batches on their way: read and assembled ahead of the consumer by threads, or on demand without any."""

    def __init__(
        self,
        num_workers: int,
        folder: ParquetFolder,
        epochs: Iterator[_PlannedEpoch],
        pool: MemoryPool,
        *,
        skip_bad_rows: bool,
    ) -> None:
        self._ahead = 2 * num_workers
        self._executor: InlineExecutor | ThreadPoolExecutor = InlineExecutor()
        if num_workers:
            self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="fastvideo-loader")
        # A loader that is dropped without close() leaves no threads: nothing in here refers back to it.
        self._stop = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)
        self._tickets = self._submit_all(folder, epochs, self._executor, pool, skip_bad_rows)
        self._waiting: deque[tuple[Ticket, _Position]] = deque()

    @staticmethod
    def _submit_all(
        folder: ParquetFolder,
        epochs: Iterator[_PlannedEpoch],
        executor: InlineExecutor | ThreadPoolExecutor,
        pool: MemoryPool,
        skip_bad_rows: bool,
    ) -> Iterator[tuple[Ticket, _Position]]:
        for epoch in epochs:
            tickets = stream_batches(folder, epoch.plan, epoch.start, executor, pool, skip_bad_rows=skip_bad_rows)
            for i, ticket in enumerate(tickets, epoch.start + 1):
                yield ticket, epoch.position.after(i)

    def next(self) -> tuple[ReadBatch, _Position]:
        while len(self._waiting) <= self._ahead:
            self._waiting.append(next(self._tickets))
        ticket, position = self._waiting.popleft()
        return ticket.result(), position

    def close(self) -> None:
        self._waiting.clear()
        self._stop.detach()
        self._executor.shutdown(wait=True, cancel_futures=True)


def _order(
    layout: Layout, seed: int, epoch: int, window_bytes: int, source: int | None, consumed: Sequence[Segment]
) -> EpochOrder | SharedOrder:
    if source is None:
        return EpochOrder(layout, stream=(seed, epoch), window_bytes=window_bytes, consumed=consumed)
    return SharedOrder(layout, seed=seed, epoch=epoch, window_bytes=window_bytes, source=source, consumed=consumed)


def _planned_epochs(
    order_of: Callable[..., EpochOrder | SharedOrder], rank: int, position: _Position
) -> Iterator[_PlannedEpoch]:
    while True:
        *consumed, current = position.segments
        order = order_of(epoch=position.epoch, consumed=consumed)
        plan = order.plan(rank, current.world_size, current.batch_size)
        if current.batches < len(plan):
            yield _PlannedEpoch(position, plan, current.batches)
        position = _Position(position.epoch + 1, (Segment(current.world_size, current.batch_size, 0),))


def _check_arguments(batch_size: int, seed: int, rank: int, size: int, num_workers: int, window_bytes: int) -> None:
    values = {"batch_size": batch_size, "size": size, "window_bytes": window_bytes}
    problems = [Problem(f"{name} is {value}", allowed="1 or more") for name, value in values.items() if value < 1]
    values = {"seed": seed, "num_workers": num_workers}
    problems += [Problem(f"{name} is {value}", allowed="0 or more") for name, value in values.items() if value < 0]
    if not 0 <= rank < size:
        problems.append(Problem(f"rank is {rank}", allowed=f"0 to size - 1 = {size - 1}"))
    if problems:
        raise DataError(problems)


def _segments(state: dict[str, Any]) -> list[Segment]:
    if "sources" in state:
        found = f"the run's data is one path without a weight, but the checkpoint's was {len(state['sources'])} with weights"
        raise CheckpointError(Problem(found, fix=f"give training.data_path as it was; {_NEW_DATA}"))
    missing = [key for key in _STATE_KEYS if key not in state]
    if missing or not state["segments"]:
        found = f"the data loader's state lacks {', '.join(missing or ['segments'])}"
        raise CheckpointError(Problem(found, fix="resume from another checkpoint"))
    return [Segment(*map(int, values)) for values in state["segments"]]
