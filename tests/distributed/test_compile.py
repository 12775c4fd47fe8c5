"""Networks that are compiled block by block train as they do uncompiled, also sharded and with activations recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.distributed.test_roles import change, run_of

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def train(
    folder: Path, wan: Path, data: Path, world_size: int, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What workers.runs saw of the same run, uncompiled and compiled."""
    runs: dict[str, dict[str, Any]] = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        given = {"max_train_steps": 3, "enable_torch_compile": compiled, **options}
        runs[name] = run_of(wan, data, folder / name, world_size, "finetune", **given)
    run_workers(world_size, "runs", folder, runs=runs, fixed=dict.fromkeys(runs, 2 // world_size))
    eager, compiled = (torch.load(folder / f"{name}.pt") for name in runs)
    assert [name for name, value in eager["start"].items() if not torch.equal(value, compiled["start"][name])] == []
    assert compiled["graphs"] > eager["graphs"] == 0
    return eager, compiled


@pytest.mark.parametrize(("world_size", "checkpointing"), [(1, None), (1, "ops"), (2, "full")])
def test_compiling_by_block_changes_no_weight(tmp_path, tiny_wan, latent_data, world_size, checkpointing):
    options = {"enable_gradient_checkpointing_type": checkpointing}
    eager, compiled = train(tmp_path, tiny_wan, latent_data, world_size, **options)
    for name, value in eager["trained"].items():
        torch.testing.assert_close(value, compiled["trained"][name], atol=1e-5, rtol=1e-5, msg=name)


def test_compiled_blocks_that_are_gathered_in_bfloat16_learn_the_same(tmp_path, tiny_wan, latent_data):
    options = {"enable_gradient_checkpointing_type": "full", "mixed_precision": "bf16"}
    moved = [change(seen, "student") for seen in train(tmp_path, tiny_wan, latent_data, 2, **options)]
    assert (moved[0] - moved[1]).norm() < 0.05 * moved[0].norm()
