"""A run of several ranks that is resumed is the run that was not interrupted, to the bit; a damaged shard is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.distributed.test_roles import run_of, with_lora

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
HALF, WHOLE = 3, 6


def run(
    wan: Path, data: Path, out: Path, world_size: int, *, lora: bool, method: str = "finetune", **training: Any
) -> dict[str, Any]:
    options = {"training_state_checkpointing_steps": HALF, "max_train_steps": WHOLE, **training}
    made = run_of(wan, data, out, world_size, method, **options)
    made["training"]["train_batch_size"] = 1
    return {**(with_lora(made) if lora else made), "callbacks": {"ema": {"decay": 0.9}}}


def both(tmp_path: Path, wan: Path, data: Path, world_size: int, **options: Any) -> list[list[dict[str, Any]]]:
    """What the ranks of the uninterrupted run saw, and those of one that goes on from its middle."""
    whole = run(wan, data, tmp_path / "whole", world_size, **options)
    run_workers(world_size, "resumable", tmp_path / "first", runs={"run": whole})
    start = str(tmp_path / "whole" / f"checkpoint-{HALF:06d}")
    again = run(wan, data, tmp_path / "again", world_size, **options, resume_from_checkpoint=start)
    run_workers(world_size, "resumable", tmp_path / "second", runs={"run": again})
    ranks = range(world_size)
    return [[torch.load(tmp_path / leg / f"run-{rank}.pt") for rank in ranks] for leg in ("first", "second")]


def assert_same_end(one: dict[str, Any], other: dict[str, Any]) -> None:
    for kind in ("weights", "moments", "ema", "rng"):
        assert one["end"][kind].keys() == other["end"][kind].keys()
        assert one["end"][kind]
        differing = [
            name for name, value in one["end"][kind].items() if not torch.equal(value, other["end"][kind][name])
        ]
        assert differing == []


@pytest.mark.parametrize("lora", [False, True])
def test_two_ranks_go_on_to_the_bit_with_adapters_too(tmp_path, tiny_wan, latent_data, lora):
    whole, again = both(tmp_path, tiny_wan, latent_data, 2, lora=lora)
    for one, other in zip(whole, again, strict=True):
        assert other["start_step"] == HALF
        assert one["ids"][HALF:] == other["ids"]
        assert_same_end(one, other)
    weights = [rank["end"]["weights"] for rank in whole]
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []  # in sync


@pytest.mark.parametrize("lora", [False, True])
def test_an_averaged_target_of_two_ranks_goes_on_to_the_bit(tmp_path, tiny_wan, latent_data, lora):
    whole, again = both(tmp_path, tiny_wan, latent_data, 2, lora=lora, method="consistency")
    for one, other in zip(whole, again, strict=True):
        assert other["start_step"] == HALF
        assert_same_end(one, other)
        assert any(name.startswith("target") for name in one["end"]["weights"])


def test_two_replicas_of_two_shards_train_as_one_process_and_go_on_to_the_bit(tmp_path, tiny_wan, latent_data):
    """4 ranks, HSDP 2 x 2."""
    whole, again = both(tmp_path, tiny_wan, latent_data, 4, lora=False, hsdp_replicate_dim=2)
    for one, other in zip(whole, again, strict=True):
        assert_same_end(one, other)
    seen = {}
    for world_size, options in ((4, {"hsdp_replicate_dim": 2, "hsdp_shard_dim": 2}), (1, {})):
        out = tmp_path / f"world-{world_size}"
        same = run_of(tiny_wan, latent_data, out / "same", world_size, "dmd2", **options)
        same["training"]["train_batch_size"] = 4 // world_size
        told = {"runs": {"same": same}, "fixed": {"same": 4 // world_size}}
        run_workers(world_size, "runs", out, **told)
        seen[world_size] = torch.load(out / "same.pt")
    for name, value in seen[1]["trained"].items():
        torch.testing.assert_close(value, seen[4]["trained"][name], atol=1e-6, rtol=1e-6)
    for role, held in seen[1]["held"].items():
        assert held * 0.5 <= seen[4]["held"][role] <= held * 0.55


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            "flipped",
            r"the checkpoint is not whole: state/roles-rank-00001\.safetensors was changed since it was written",
        ),
        ("cut", r"roles-rank-00001\.safetensors has \d+ bytes instead of \d+"),
        ("gone", r"roles-rank-00001\.safetensors is missing"),
    ],
)
def test_a_damaged_shard_of_one_rank_is_an_error_that_names_its_file(
    tmp_path, tiny_wan, latent_data, checkpoint, damage, text
):
    folder = tmp_path / "checkpoint-000003"
    shutil.copytree(checkpoint, folder)
    shard = folder / "state" / "roles-rank-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(content if damage == "flipped" else content[:-8])
    options = {"resume_from_checkpoint": str(folder)}
    again = run(tiny_wan, latent_data, tmp_path / "again", 2, lora=False, **options)
    with pytest.raises(AssertionError, match=text):
        run_workers(2, "resumable", tmp_path / "second", runs={"run": again})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_wan, latent_data) -> Path:
    """Of two ranks after three steps."""
    out = tmp_path_factory.mktemp("checkpoint")
    half = run(tiny_wan, latent_data, out / "half", 2, lora=False, max_train_steps=HALF)
    run_workers(2, "resumable", out / "first", runs={"run": half})
    return out / "half" / f"checkpoint-{HALF:06d}"
