from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import foreign_row, ids, sample_row, write_file, write_numbered

from fastvideo_core.config.training import DataSource, TrainingArgs
from fastvideo_core.errors import CheckpointError, DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.data_sources import DataSources
from fastvideo_data.loading.epoch_order import EpochPlan, Layout, Segment
from fastvideo_data.loading.loader import ParquetLoader
from fastvideo_data.loading.shared_order import SharedOrder
from fastvideo_data.loading.sources import SourcesLoader

SHAPES = [(2, 2, 2, 2), (2, 1, 2, 4), (2, 3, 1, 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`a` holds rows 0 to 23 of one latent shape, `b` rows 100 to 118 of three."""
    write_numbered(tmp_path / "a", [5, 4, 7, 8])
    rows = [sample_row(100 + n, shape=SHAPES[n // 3 % 3]) for n in range(19)]
    write_file(tmp_path / "b" / "part.parquet", rows, group=3)
    return tmp_path


def opened(folder: Path, *sources: dict[str, Any], **tensors: Any) -> DataSources:
    training = TrainingArgs.model_validate(
        {
            "output_dir": "out",
            "max_train_steps": 1,
            "data_path": [{**one, "path": str(folder / one["path"])} for one in sources],
        }
    )
    return DataSources(training.data_sources, **tensors)


def loader(folder: Path, *sources: dict[str, Any], **changes: Any) -> Any:
    sources = sources or ({"path": "a", "weight": 3}, {"path": "b"})
    return opened(folder, *sources).loader(**{"batch_size": 2, "seed": 0, "window_bytes": 800, **changes})


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    tensors = [key for key, value in first.items() if isinstance(value, torch.Tensor)]
    others = [{key: value for key, value in one.items() if key not in tensors} for one in (first, second)]
    return others[0] == others[1] and all(torch.equal(first[key], second[key]) for key in tensors)


@pytest.mark.parametrize("name", ["a", "b"])
def test_one_source_without_a_weight_is_the_path_alone(folder: Path, name: str) -> None:
    alone = DataSet(folder / name).loader(batch_size=2, seed=0, rank=1, size=2, window_bytes=800)
    listed = loader(folder, {"path": name}, rank=1, size=2)
    assert isinstance(listed, ParquetLoader)
    for _ in range(30):
        assert equal(next(alone), next(listed))
    assert alone.state_dict() == listed.state_dict()
    weighed = next(loader(folder, {"path": name, "loss_weight": 0.5}, rank=1, size=2))
    first = next(loader(folder, {"path": name}, rank=1, size=2))
    assert equal(weighed, {**first, "data_loss_weight": 0.5})


def test_the_source_of_a_batch_is_drawn_by_weight_from_seed_and_number_alone(folder: Path) -> None:
    source = loader(folder)
    drawn = [source.source_of(n) for n in range(4000)]
    assert abs(drawn.count(0) - 3000) <= 3 * (4000 * 0.75 * 0.25) ** 0.5
    assert loader(folder, rank=1, size=2, batch_size=1).source_of(3999) == drawn[3999]
    assert [loader(folder, seed=1).source_of(n) for n in range(64)] != drawn[:64]
    assert [int(ids(next(source))[0] >= 100) for _ in range(60)] == drawn[:60]
    named = {"training.data_path[0].path": 0, "training.data_path[1].path": 1}
    assert [named[next(source)["data_source"]] for _ in range(20)] == drawn[60:80]
    runs = [len(list(group)) for _, group in itertools.groupby(drawn)]
    assert max(runs) > 10  # chance, no pattern: such runs are missing from one in 10^30 sequences


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_goes_on_to_the_bit_at_every_number(folder: Path, workers: int) -> None:
    source = loader(folder, num_workers=workers)
    batches, states = [], [source.state_dict()]
    for _ in range(36):
        batches.append(next(source))
        states.append(json.loads(json.dumps(source.state_dict())))
    source.close()
    for consumed in range(0, 36, 5):
        resumed = loader(folder, num_workers=2 - workers)
        resumed.load_state_dict(states[consumed])
        assert all(equal(next(resumed), batch) for batch in batches[consumed : consumed + 12])
        resumed.close()


def test_every_source_keeps_epochs_of_its_own(folder: Path) -> None:
    source = loader(folder, batch_size=1)
    seen: dict[bool, list[int]] = {False: [], True: []}
    while min(len(seen[False]), 24) + min(len(seen[True]), 19) < 43:
        (number,) = ids(next(source))
        seen[number >= 100].append(number)
    assert sorted(seen[False][:24]) == list(range(24))
    assert sorted(seen[True][:19]) == list(range(100, 119))
    assert [one.epoch for one in source.loaders] == [(len(seen[False]) - 1) // 24, 0]
    assert source.num_samples == 43
    assert source.batches_per_epoch == 19 * 4


def test_all_ranks_have_the_same_source_and_shape_at_a_time(folder: Path) -> None:
    ranks = [loader(folder, {"path": "b", "weight": 3}, {"path": "a"}, rank=rank, size=3) for rank in range(3)]
    for _ in range(40):
        batches = [next(rank) for rank in ranks]
        assert len({tuple(batch["vae_latent"].shape[1:]) for batch in batches}) == 1
        assert len({batch["data_source"] for batch in batches}) == 1
        assert len({str(rank.state_dict()) for rank in ranks}) == 1


def test_one_source_with_a_weight_has_the_same_shape_on_all_ranks_too(folder: Path) -> None:
    ranks = [loader(folder, {"path": "b", "weight": 1}, rank=rank, size=2) for rank in range(2)]
    for _ in range(20):
        assert len({tuple(next(rank)["vae_latent"].shape[1:]) for rank in ranks}) == 1


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_world_size_neither_repeats_nor_skips_a_row_of_a_source(folder: Path, before: int, after: int) -> None:
    def together(world: int, state: dict[str, Any] | None, rows: int) -> tuple[list[int], dict[str, Any]]:
        ranks = [loader(folder, {"path": "a"}, {"path": "a"}, rank=r, size=world, batch_size=1) for r in range(world)]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        seen: list[int] = []
        while len(seen) < rows:
            found = [next(rank) for rank in ranks]
            if found[0]["data_source"].startswith("training.data_path[0]"):
                seen += [n for batch in found for n in ids(batch)]
        return seen, ranks[0].state_dict()

    first, state = together(before, None, 12)
    rest, _ = together(after, state, 12)
    assert sorted(first + rest) == list(range(24))


def test_states_of_other_data_are_refused_in_words(folder: Path) -> None:
    both, alone = loader(folder), loader(folder, {"path": "a"})
    with pytest.raises(CheckpointError, match=r"of 2 sources with weights, but the checkpoint's was of 1 without one"):
        both.load_state_dict(alone.state_dict())
    with pytest.raises(CheckpointError, match=r"one path without a weight, but the checkpoint's was 2 with weights"):
        alone.load_state_dict(both.state_dict())
    with pytest.raises(CheckpointError, match=r"of 1 sources with weights, but the checkpoint's was of 2"):
        loader(folder, {"path": "a", "weight": 2}).load_state_dict(both.state_dict())
    with pytest.raises(CheckpointError, match=r"part-0.parquet is gone; (.|\n)*part.parquet is gone; "):
        loader(folder, {"path": "b"}, {"path": "a"}).load_state_dict(both.state_dict())
    next(both)
    other = loader(folder, {"path": "a"}, {"path": "b", "weight": 9})  # other weights hold from here on
    other.load_state_dict(both.state_dict())
    assert other.state_dict() == both.state_dict()


def test_sources_may_hold_other_tensors_and_other_normalisation(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "x.parquet", [sample_row(n) for n in range(4)])
    texts = [{k: v for k, v in sample_row(9).items() if not k.startswith("vae_latent")}]
    write_file(tmp_path / "b" / "x.parquet", texts)
    normalised = {"fastvideo.latents_normalised": "true"}
    write_file(tmp_path / "c" / "x.parquet", [sample_row(7, shape=SHAPES[1])], **normalised)
    data = opened(tmp_path, *({"path": name} for name in "abc"), wanted=["text_embedding"], optional=["vae_latent"])
    examples = data.examples()
    assert [ids(example) for example in examples] == [[0], [9], [7]]
    assert [example.get("vae_latent_normalised") for example in examples] == [False, None, True]
    assert [example["data_source"][:21] for example in examples] == [f"training.data_path[{n}]" for n in range(3)]
    assert [one.tensor_names for one in data.data_sets.values()][1] == ("text_embedding",)
    loader = data.loader(batch_size=1, seed=0)
    found = [next(loader) for _ in range(30)]
    assert {(ids(batch)[0], "vae_latent" in batch) for batch in found} >= {(9, False), (7, True)}


def test_problems_name_their_source_and_come_all_at_once(folder: Path) -> None:
    write_file(folder / "c" / "x.parquet", [foreign_row(0, np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 4)))])
    with pytest.raises(DataError) as caught:
        opened(folder, {"path": "a"}, {"path": "b"}, {"path": "none"}, wanted=["vae_latent", "clip_feature"])
    places = [problem.where for problem in caught.value.problems]
    assert [place.partition(": ")[0] for place in places] == [f"training.data_path[{n}].path" for n in (0, 1, 2)]
    assert "holds no tensor clip_feature" in str(caught.value)
    assert "there is no such file" in str(caught.value)


def layout(group_rows: list[int], buckets: list[int]) -> Layout:
    rows = np.array(group_rows, np.int64)
    return Layout(rows, rows * 10, np.array(buckets, np.int64))


def rows(plans: list[EpochPlan], until: int | None = None) -> list[int]:
    return [int(row) for plan in plans for row in plan.rows[:until].ravel()]


@pytest.mark.parametrize("trial", range(40))
def test_the_shared_order_goes_on_with_exactly_the_rows_that_are_left(trial: int) -> None:
    rng = np.random.default_rng(trial)
    sizes = [*rng.integers(0, 6, int(rng.integers(2, 9))).tolist(), 3]
    marks = rng.integers(0, 3, sum(sizes))
    data = layout(sizes, marks.tolist())
    batch = int(rng.integers(1, 4))
    consumed: list[Segment] = []
    seen: set[int] = set()
    for world in (int(n) for n in rng.integers(1, 5, 3)):
        order = SharedOrder(data, seed=0, epoch=1, window_bytes=210, consumed=consumed, source=trial % 3)
        plans = [order.plan(rank, world, batch) for rank in range(world)]
        assert {len(plan) for plan in plans} == {order.num_batches(world, batch)}
        shapes = np.stack([marks[plan.rows] for plan in plans])
        assert (shapes == shapes[:1, :, :1]).all()
        left = set(range(data.num_rows)) - seen
        assert left <= set(rows(plans))
        if len(left) >= world and not consumed:
            assert len(rows(plans)) <= len(left) + 3 * world * batch  # what completes each shape
        taken = int(rng.integers(0, len(plans[0]) + 1))
        seen |= set(rows(plans, taken))
        consumed.append(Segment(world, batch, taken))


def test_rows_of_a_shape_are_read_window_by_window() -> None:
    marks = [number // 4 % 2 for number in range(32)]  # row groups of one shape, as preprocess writes them
    plan = SharedOrder(layout([4] * 8, marks), seed=0, epoch=0, window_bytes=80, source=0).plan(0, 1, 2)
    groups = plan.rows // 4
    for group in range(8):
        assert len(set(plan.units[groups == group])) == 1  # each is read once
    needed = np.maximum.accumulate(plan.units.max(axis=1))
    assert (needed - plan.units.min(axis=1)).max() <= 2  # what is read waits for two windows at most
    assert needed[0] == 0


def test_a_data_source_is_written_like_this() -> None:
    assert DataSource(path="a") == DataSource(path="a", weight=None, loss_weight=1)
    assert not SourcesLoader.is_state({"epoch": 0})
