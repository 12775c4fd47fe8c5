"""A run goes on with another number of processes, and each rank draws its own noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.distributed.test_roles import LORA, run_of, with_lora

SAMPLES = {f"s{number}" for number in range(24)}
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def legs(tmp_path_factory, tiny_wan, latent_data) -> dict[str, list[dict[str, Any]]]:
    """`shrinks`: 3 steps on 2 ranks, then 6 on 1. `grows`: 4 steps on 1 rank, then 4 on 2. One epoch each.

    By run and leg, the ranks' notes of workers.resumable.
    """
    out = tmp_path_factory.mktemp("resume")
    seen: dict[str, list[dict[str, Any]]] = {}

    def leg(number: int, world_size: int, **ends: int) -> None:
        runs = {}
        for name, end in ends.items():
            options = {"max_train_steps": end, "train_batch_size": 2}
            options |= {"resume_from_checkpoint": "latest"} if (out / name).exists() else {}
            method = {"shrinks": "dmd2", "grows": "finetune"}[name]
            run = run_of(tiny_wan, latent_data, out / name, world_size, method, **options)
            runs[name] = {**(with_lora(run) if name == "grows" else run), "callbacks": {"ema": {"decay": 0.9}}}
            runs[name]["training"] |= {"num_height": 32, "num_width": 32, "num_frames": 9}
        run_workers(world_size, "resumable", out / f"leg-{number}", runs=runs)
        for name in ends:
            files = [out / f"leg-{number}" / f"{name}-{rank}.pt" for rank in range(world_size)]
            seen[f"{name}-{number}"] = [torch.load(file) for file in files]

    leg(1, 1, grows=4)
    leg(2, 2, shrinks=3, grows=8)
    starts = {}
    for name, path, step, weights in (("on_adapters", "grows", 4, "raw"), ("on_averages", "shrinks", 3, "ema")):
        run = run_of(tiny_wan, latent_data, out / name, 2, "finetune", max_train_steps=1)
        run["roles"]["student"] |= {"path": str(out / path / f"checkpoint-{step:06d}"), "weights": weights}
        starts[name] = run
    run_workers(2, "runs", out / "starts", runs=starts)
    for name in starts:
        seen[name] = [torch.load(out / "starts" / f"{name}.pt")]
    leg(3, 1, shrinks=9)
    return seen


def test_ranks_start_from_averages_in_a_checkpoint_each_with_its_shards(legs):
    start, ema = legs["on_averages"][0]["start"], legs["shrinks-2"][0]["end"]["ema"]
    wanted = {f"student.transformer.{name.removeprefix('student.')}": value for name, value in ema.items()}
    assert start.keys() == wanted.keys()
    assert [name for name in start if not torch.equal(start[name], wanted[name])] == []


def test_ranks_start_from_a_checkpoint_of_adapters_merged_into_their_base(legs):
    start, end = legs["on_adapters"][0]["start"], legs["grows-1"][0]["end"]["weights"]
    changed = 0
    for name, value in start.items():
        layer = name.removesuffix(".weight")
        base = end.get(name, end.get(f"{layer}.base_layer.weight", end.get(f"{name[:-5]}.base_layer.bias")))
        down, up = (end.get(f"{layer}.lora_{part}.default.weight") for part in "AB")
        if down is not None:
            base = base + LORA["alpha"] / LORA["rank"] * up @ down
            changed += 1
        torch.testing.assert_close(value, base, atol=1e-6, rtol=1e-6)
    assert changed > 0


LEGS = pytest.mark.parametrize(("before", "after"), [("shrinks-2", "shrinks-3"), ("grows-1", "grows-2")])


@LEGS
@pytest.mark.parametrize("kind", ["weights", "moments", "ema"])
def test_weights_moments_and_averages_go_on(legs, before, after, kind):
    then = legs[before][0]["end"][kind]
    for rank in legs[after]:
        now = rank["resumed"][kind]
        assert then
        assert now.keys() == then.keys()
        assert [name for name in then if not torch.equal(then[name], now[name])] == []
        assert any(not torch.equal(value, rank["end"][kind][name]) for name, value in now.items())


@LEGS
def test_the_epoch_goes_on_with_the_samples_that_are_left(legs, before, after):
    used = [sample for leg in (before, after) for rank in legs[leg] for batch in rank["ids"] for sample in batch]
    assert len(used) == len(SAMPLES)
    assert set(used) == SAMPLES


@LEGS
def test_shared_streams_go_on_and_noise_is_drawn_anew(legs, before, after):
    then = legs[before][0]["end"]["rng"]
    locals_seen = [then]
    for rank in legs[after]:
        now = rank["resumed"]["rng"]
        assert now.keys() == then.keys()
        for name, value in then.items():
            if name.startswith("shared/"):
                assert torch.equal(value, now[name])
            else:
                assert all(not torch.equal(other[name], now[name]) for other in locals_seen), name
        locals_seen.append(now)


def test_ranks_draw_different_noise_and_the_same_exit_steps(legs):
    one, two = (rank["end"]["rng"] for rank in legs["shrinks-2"])
    assert one.keys() == two.keys()
    assert {name for name in one if torch.equal(one[name], two[name])} == {"shared/exit_step"}
