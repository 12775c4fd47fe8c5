from __future__ import annotations

import numpy as np
import pytest

from fastvideo_data.loading.epoch_order import EpochOrder, EpochPlan, Layout, Segment


def layout(group_rows: list[int], buckets: list[int] | None = None) -> Layout:
    rows = np.array(group_rows, np.int64)
    marks = np.zeros(rows.sum(), np.int64) if buckets is None else np.array(buckets, np.int64)
    return Layout(rows, rows * 10, marks)


def order(data: Layout, epoch: int = 0, seed: int = 0, consumed: tuple[Segment, ...] = ()) -> EpochOrder:
    return EpochOrder(data, stream=(seed, epoch), window_bytes=70, consumed=consumed)


def flat(parts: list[list[int]]) -> list[int]:
    return [row for part in parts for row in part]


def rows(plans: list[EpochPlan], until: int | None = None) -> list[int]:
    return [int(row) for plan in plans for row in plan.rows[:until].ravel()]


def test_an_epoch_sees_every_row_once_when_batches_divide_it() -> None:
    plan = order(layout([3, 5, 4])).plan(0, 1, 4)
    assert len(plan) == 3
    assert sorted(rows([plan])) == list(range(12))


def test_shards_are_disjoint_and_equal() -> None:
    data = order(layout([5, 2, 6, 3]))
    shards = [rows([data.plan(rank, 4, 2)]) for rank in range(4)]
    assert [len(shard) for shard in shards] == [4, 4, 4, 4]
    assert sorted(flat(shards)) == list(range(16))


def test_epochs_and_seeds_differ_and_repeat_exactly() -> None:
    data = layout([4] * 6)
    first = rows([order(data).plan(0, 1, 4)])
    assert rows([order(data).plan(0, 1, 4)]) == first
    assert rows([order(data, epoch=1).plan(0, 1, 4)]) != first
    assert rows([order(data, seed=1).plan(0, 1, 4)]) != first


def test_rows_of_neighbouring_groups_are_mixed_but_a_group_is_read_in_one_unit() -> None:
    plan = order(layout([3] * 8)).plan(0, 1, 3)
    groups = plan.rows // 3
    assert any(len(set(batch)) > 1 for batch in groups.tolist())
    for group in range(8):
        assert len(set(plan.units[groups == group])) == 1


def test_a_short_batch_is_completed_with_other_rows_of_the_epoch() -> None:
    plan = order(layout([3, 2])).plan(0, 1, 4)
    assert plan.rows.shape == (2, 4)
    assert set(rows([plan])) == set(range(5))
    assert len(set(plan.rows[1].tolist())) == 4


def test_batches_hold_one_bucket_only_and_nothing_is_lost() -> None:
    marks = [0, 1, 0, 0, 1, 2, 0, 1, 0, 0, 0]
    plan = order(layout([4, 4, 3], marks)).plan(0, 1, 2)
    assert all(len({marks[row] for row in batch}) == 1 for batch in plan.rows.tolist())
    assert set(rows([plan])) == set(range(11))


def test_ranks_have_equally_many_batches_even_with_fewer_rows_than_ranks() -> None:
    data = order(layout([2, 1]))
    plans = [data.plan(rank, 5, 2) for rank in range(5)]
    assert [len(plan) for plan in plans] == [1] * 5
    assert set(rows(plans)) == {0, 1, 2}


@pytest.mark.parametrize("trial", range(60))
def test_another_world_size_continues_with_exactly_the_rows_that_are_left(trial: int) -> None:
    rng = np.random.default_rng(trial)
    sizes = [*rng.integers(0, 6, int(rng.integers(2, 9))).tolist(), 3]
    data = layout(sizes, rng.integers(0, 3, sum(sizes)).tolist())
    worlds = [int(n) for n in rng.integers(1, 5, 3)]
    batch = int(rng.integers(1, 4))
    consumed: list[Segment] = []
    seen: set[int] = set()
    for world in worlds:
        now = order(data, consumed=tuple(consumed))
        assert set(now.rows_left.tolist()) == set(range(data.num_rows)) - seen
        plans = [now.plan(rank, world, batch) for rank in range(world)]
        assert len({len(plan) for plan in plans}) == 1
        assert set(range(data.num_rows)) - seen <= set(rows(plans))
        taken = int(rng.integers(0, len(plans[0]) + 1))
        seen |= set(rows(plans, taken))
        consumed.append(Segment(world, batch, taken))
