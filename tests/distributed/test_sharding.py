"""What is sent between the ranks, and when."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.distributed.test_roles import run_of

pytestmark = pytest.mark.distributed


def test_gradients_are_reduced_in_the_last_round_alone(tmp_path):
    run_workers(2, "accumulation", tmp_path)
    seen = torch.load(tmp_path / "seen.pt")
    assert seen[False]["reductions"] > 0
    assert seen[True]["reductions"] == 3 * seen[False]["reductions"]
    for name, value in seen[True]["weights"].items():
        torch.testing.assert_close(value, seen[False]["weights"][name], atol=1e-6, rtol=1e-6)


def test_linear_layers_are_gathered_in_bfloat16_and_kept_in_float32(tmp_path, tiny_wan, latent_data):
    options = {"mixed_precision": "bf16", "max_train_steps": 1}
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 2, "finetune", **options)
    run_workers(2, "gathered", tmp_path, run=run)
    seen = torch.load(tmp_path / "seen.pt")
    assert set(seen["outside"].values()) == {"torch.float32"}
    inside = seen["inside"]
    assert {inside[name] for name in inside if ".to_" in name or "ffn" in name} == {"torch.bfloat16"}
    assert {inside[name] for name in inside if "norm" in name} == {"torch.float32"}
