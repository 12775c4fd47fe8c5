"""What the estimate says that one process of several holds is what it holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_testing.runs import resolve_run
from tests.distributed.ranks import run_workers
from tests.distributed.test_roles import run_of, with_lora

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.mark.parametrize(
    ("lora", "training"),
    [(False, {}), (True, {"mixed_precision": "bf16"}), (False, {"hsdp_replicate_dim": 2, "frozen_cpu_offload": True})],
)
def test_the_shares_of_two_ranks_have_the_estimated_size(tmp_path, tiny_wan, latent_data, lora, training):
    options: dict[str, Any] = {"max_train_steps": 2, "num_height": 32, "num_width": 32, "num_frames": 9, **training}
    run = run_of(tiny_wan, latent_data, tmp_path / "run", 2, "dmd2", **options)
    run = {**(with_lora(run, "critic") if lora else run), "callbacks": {"ema": {"decay": 0.9, "roles": ["student"]}}}
    estimate = estimate_run(resolve_run(tmp_path, run))
    assert estimate is not None
    run_workers(2, "shares", tmp_path / "out", run=run)
    ranks = [torch.load(tmp_path / "out" / f"{rank}.pt") for rank in range(2)]
    assert ranks[0].keys() == estimate.roles.keys()
    for role, kinds in ranks[0].items():
        for kind in kinds:
            most = max(rank[role][kind] for rank in ranks)
            assert getattr(estimate.roles[role], kind) == pytest.approx(most, rel=0.01), f"{role}, {kind}"
    trained = {role for role, kinds in ranks[0].items() if kinds["gradients"]}
    assert trained == {"student", "critic"}
