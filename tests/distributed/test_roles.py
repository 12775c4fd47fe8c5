"""Roles of a real family on two ranks: loaded in parts, sharded, with adapters; the same training as on one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.roles import is_lora_parameter
from fastvideo_core.weights.parameters import base_name, clean_name
from tests.distributed.ranks import run_workers
from tests.methods import sections

STEPS = 6
LORA = {"rank": 4, "alpha": 8, "targets": ["to_q", "to_v", "ffn.net.0.proj"]}
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def run_of(wan: Path, data: Path, out: Path, world_size: int, method: str, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "wan", "method": method},
        **sections(method, lambda role: str(wan)),
        "training": {
            "seed": 7,
            "output_dir": str(out),
            "data_path": str(data),
            "max_train_steps": STEPS,
            "train_batch_size": 2 // world_size,
            "num_gpus": world_size,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-4,  # so that the rounding of a gradient near 0 does not decide a weight's direction
            **training,
        },
    }


def with_lora(run: dict[str, Any], role: str = "student") -> dict[str, Any]:
    return {**run, "roles": {**run["roles"], role: {**run["roles"][role], "lora": LORA}}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_wan, latent_data) -> dict[int, dict[str, dict[str, Any]]]:
    """By world size and name of the run: what workers.runs saw."""
    seen: dict[int, dict[str, dict[str, Any]]] = {}
    for world_size in (1, 2):
        out = tmp_path_factory.mktemp(f"world-{world_size}")

        def run(name: str, method: str, **training: Any) -> dict[str, Any]:
            return run_of(tiny_wan, latent_data, out / name, world_size, method, **training)  # noqa: B023

        several = {"hsdp_replicate_dim": 2, "frozen_cpu_offload": True} if world_size == 2 else {}
        runs = {
            "dmd2": run("dmd2", "dmd2"),
            "bf16": run("bf16", "dmd2", mixed_precision="bf16", enable_gradient_checkpointing_type="full"),
            "options": run("options", "dmd2", enable_gradient_checkpointing_type="ops", **several),
            "lora": with_lora(run("lora", "finetune")),
            "streamed": with_lora(
                run("streamed", "finetune", offload_blocks=1, enable_gradient_checkpointing_type="full")
            ),
            "consistency": run("consistency", "consistency"),
            "lora_consistency": with_lora(run("lora_consistency", "consistency")),
            "rcm": run("rcm", "rcm", enable_gradient_checkpointing_type="full"),
            "lora_rcm": with_lora(run("lora_rcm", "rcm")),
            "bf16_rcm": run("bf16_rcm", "rcm", mixed_precision="bf16", enable_gradient_checkpointing_type="full"),
            "lora_critic": with_lora(run("lora_critic", "dmd2"), "critic"),
        }
        options = {"runs": runs, "fixed": dict.fromkeys(runs, 2 // world_size)}
        run_workers(world_size, "runs", out, **options)
        seen[world_size] = {name: torch.load(out / f"{name}.pt") for name in runs}
    return seen


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    far = {name: (one[name] - other[name]).abs().max().item() for name in one}
    assert {name: distance for name, distance in far.items() if distance > tolerance} == {}


def change(seen: dict[str, Any], role: str) -> Tensor:
    """What training did to all weights of a role, as one vector."""
    names = sorted(name for name in seen["requires_grad"] if name.startswith(f"{role}."))
    return torch.cat([(seen["trained"][name] - seen["start"][name]).flatten() for name in names])


def test_what_two_ranks_load_is_what_one_loads(trained):
    one, two = trained[1]["bf16"], trained[2]["bf16"]
    assert one["dtypes"] == two["dtypes"]
    assert "torch.bfloat16" in two["dtypes"].values()
    for part in ("start", "buffers"):
        assert one[part].keys() == two[part].keys()
        assert [name for name in one[part] if not torch.equal(one[part][name], two[part][name])] == []
    assert any("freqs" in name for name in two["buffers"])


def test_every_role_is_sharded_frozen_ones_too(trained):
    two = trained[2]["dmd2"]
    assert two["sharded"] == set(two["dtypes"])
    for role, held in trained[1]["dmd2"]["held"].items():
        assert two["held"][role] <= held * 0.55
    assert trained[2]["options"]["held"]["student"] == trained[1]["options"]["held"]["student"]  # replicas


EQUAL = ["dmd2", "options", "lora", "lora_critic", "consistency", "lora_consistency", "rcm", "lora_rcm"]


@pytest.mark.parametrize("name", EQUAL)
def test_two_ranks_train_as_one_does(trained, name):
    one, two = trained[1][name], trained[2][name]
    assert_same_weights(one["trained"], two["trained"], 1e-6)
    assert any(not torch.equal(one["start"][key], value) for key, value in one["trained"].items())


@pytest.mark.parametrize("name", ["bf16", "bf16_rcm"])
def test_gathering_in_bfloat16_trains_as_autocast_does(trained, name):
    one, two = trained[1][name], trained[2][name]
    for role in ("student", "critic"):
        moved = [change(seen, role) for seen in (one, two)]
        assert (moved[0] - moved[1]).norm() < 0.05 * moved[0].norm()
    assert {two["dtypes"][name] for name in two["requires_grad"]} == {"torch.float32"}


@pytest.mark.parametrize("world_size", [1, 2])
def test_adapters_train_and_base_weights_stay_bit_identical(trained, world_size):
    seen = trained[world_size]["lora"]
    assert seen["requires_grad"] == {name for name in seen["start"] if is_lora_parameter(name)}
    changed = {name for name, value in seen["start"].items() if not torch.equal(value, seen["trained"][name])}
    assert changed == seen["requires_grad"]
    base = {base_name(name): value for name, value in seen["trained"].items() if not is_lora_parameter(name)}
    original = {name: value for name, value in trained[1]["dmd2"]["start"].items() if name.startswith("student.")}
    assert base.keys() == original.keys()
    assert [name for name in base if not torch.equal(base[name], original[name])] == []


def test_blocks_that_are_copied_from_host_memory_train_adapters_to_the_same_bits(trained):
    apart, streamed = (
        {clean_name(name): value for name, value in trained[2][run]["trained"].items()} for run in ("lora", "streamed")
    )
    assert [name for name, value in apart.items() if not torch.equal(value, streamed[name])] == []


def test_adapters_are_on_the_named_layers_and_change_nothing_at_first(trained):
    start = trained[2]["lora"]["start"]
    layers = {name.partition(".lora_A.")[0] for name in start if ".lora_A." in name}
    assert {".".join(layer.split(".")[4:]) for layer in layers} == {
        "attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v", "ffn.net.0.proj"
    }  # fmt: skip
    assert all(start[name].shape[0] == 4 and start[name].abs().sum() > 0 for name in start if ".lora_A." in name)
    assert all(start[name].abs().sum() == 0 for name in start if ".lora_B." in name)
