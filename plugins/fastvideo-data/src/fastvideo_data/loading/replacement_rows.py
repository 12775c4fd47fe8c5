"""Another row in place of one that is damaged: the same one whenever and however the batch is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.loading.batch_buffers import BatchMemory
from fastvideo_data.loading.collate import BadRow, Row, decode_good_rows
from fastvideo_data.loading.epoch_order import EpochPlan
from fastvideo_data.loading.parquet_folder import ParquetFolder


def replace_bad_rows(
    folder: ParquetFolder, plan: EpochPlan, batch: int, rows: Sequence[Row | BadRow], memory: BatchMemory
) -> list[Row]:
    """The rows of a batch, with the next good rows of the plan that have the batch's latent shape in place of bad ones.

    "Next" counts from the batch after this one to the plan's end, and from its start again: a function of the plan and
    the data alone. The batch's own rows come last.

    Raises:
        DataError: there is no good row of that shape in the plan.
    """
    batch_size = plan.rows.shape[1]
    candidates = _candidates(folder, plan, batch)
    starts = folder.layout.group_starts
    unreadable: set[int] = set()
    good: list[Row] = []
    for place, row in enumerate(rows):
        found = row
        while isinstance(found, BadRow):
            number = next(candidates, None)
            if number is None:
                problem = Problem(
                    "no row of its latent shape can be read instead of it", row_place(row), fix="preprocess it again"
                )
                raise DataError([*_problems(row), problem])
            group = int(np.searchsorted(starts, number, side="right")) - 1
            if group in unreadable:
                continue
            slot = batch * batch_size + place
            (found,) = decode_good_rows(folder, group, [number - int(starts[group])], [slot], memory)
            if isinstance(found, BadRow) and found.error.__cause__ is not None:
                unreadable.add(group)
        good.append(found)
    return good


def row_place(row: Row | BadRow) -> str:
    """How an error names a row."""
    return _problems(row)[0].where if isinstance(row, BadRow) else str(row.where)


def _problems(row: Row | BadRow) -> tuple[Problem, ...]:
    return row.error.problems if isinstance(row, BadRow) else ()


def _candidates(folder: ParquetFolder, plan: EpochPlan, batch: int) -> Iterator[int]:
    order = np.roll(plan.rows, -(batch + 1), axis=0).ravel()
    buckets = folder.layout.buckets
    same = order[buckets[order] == buckets[plan.rows[batch, 0]]]
    return iter(same.tolist())
