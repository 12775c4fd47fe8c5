"""Networks that roles share train in two processes as in one, and compiled as they do uncompiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.weights.parameters import clean_name
from tests.distributed.ranks import run_workers
from tests.distributed.test_adversarial import run_of

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
LORA = {"rank": 2, "alpha": 3}


def train(folder: Path, wan: Path, data: Path, world_size: int, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What workers.runs saw, by name of the run."""
    given = {}
    for name, training in runs.items():
        share = training.pop("share", True)
        given[name] = run_of(wan, data, folder / name, world_size, "critic", **training)
        for role in ("student", "critic"):
            given[name]["roles"][role] |= {"lora": LORA} | ({"share": "teacher"} if share else {})
    run_workers(world_size, "runs", folder, runs=given, fixed=dict.fromkeys(given, 2 // world_size))
    return {name: torch.load(folder / f"{name}.pt") for name in given}


def trained(seen: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {clean_name(name): value for name, value in seen["trained"].items()}


@pytest.mark.parametrize("kind", ["full", "ops"])
def test_two_processes_train_a_shared_base_as_one_does_and_as_three_networks(tmp_path, tiny_wan, latent_data, kind):
    options = {"enable_gradient_checkpointing_type": kind}
    one = trained(train(tmp_path / "one", tiny_wan, latent_data, 1, {"shared": options})["shared"])
    runs = {"shared": {"offload_blocks": 1, **options}, "apart": {"share": False, **options}}
    two = train(tmp_path / "two", tiny_wan, latent_data, 2, runs)
    shared, apart = trained(two["shared"]), trained(two["apart"])
    adapters = [name for name in apart if ".lora_" in name]
    assert [name for name in adapters if not torch.equal(shared[name], apart[name])] == []
    for name, value in one.items():
        torch.testing.assert_close(value, shared[name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("kind", [None, "full", "ops"])
def test_compiled_blocks_of_a_shared_base_learn_the_same(tmp_path, tiny_wan, latent_data, kind):
    options = {"enable_gradient_checkpointing_type": kind}
    runs = {"eager": dict(options), "compiled": {"enable_torch_compile": True, **options}}
    seen = train(tmp_path, tiny_wan, latent_data, 1, runs)
    assert seen["compiled"]["graphs"] > seen["eager"]["graphs"] == 0
    eager, compiled = trained(seen["eager"]), trained(seen["compiled"])
    for name, value in eager.items():
        torch.testing.assert_close(value, compiled[name], atol=1e-5, rtol=1e-5, msg=name)
