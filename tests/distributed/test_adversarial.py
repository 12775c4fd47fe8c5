"""The adversarial term on sharded networks: two ranks of a tiny Wan train as one does, whosever features the heads see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers

pytestmark = pytest.mark.distributed


def run_of(wan: Path, data: Path, out: Path, world_size: int, features: str, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {
            name: {"path": str(wan), "trainable": name != "teacher"} for name in ("student", "teacher", "critic")
        },
        "training": {
            "seed": 7,
            "output_dir": str(out),
            "data_path": str(data),
            "max_train_steps": 2,
            "train_batch_size": 2 // world_size,
            "num_gpus": world_size,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-4,  # else AdamW makes large steps of gradients that are rounding alone
            **training,
        },
        "method_config": {
            "dmd_denoising_steps": [1000, 500],
            "generator_update_interval": 2,
            "adversarial_weight": 0.5,
            "adversarial_features": features,
            "discriminator_weight": 1.0,
            "r1_weight": 0.1,
            "r1_sigma": 0.1,
        },
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_wan, latent_data) -> dict[int, dict[str, dict[str, Any]]]:
    """By world size and whose features (`replicas`: the critic's, on two replicas of one shard): what workers.runs saw."""
    seen: dict[int, dict[str, dict[str, Any]]] = {}
    for world_size in (1, 2):
        out = tmp_path_factory.mktemp(f"world-{world_size}")
        runs = {
            features: run_of(tiny_wan, latent_data, out / features, world_size, features)
            for features in ("critic", "teacher")
        }
        if world_size == 2:
            runs["replicas"] = run_of(tiny_wan, latent_data, out / "replicas", 2, "critic", hsdp_replicate_dim=2)
        options = {"runs": runs, "fixed": dict.fromkeys(runs, 2 // world_size)}
        run_workers(world_size, "runs", out, **options)
        seen[world_size] = {name: torch.load(out / f"{name}.pt") for name in runs}
    return seen


@pytest.mark.parametrize("run", ["critic", "teacher", "replicas"])
def test_two_ranks_train_student_critic_and_heads_as_one_does(trained, run):
    one, two = trained[1]["critic" if run == "replicas" else run], trained[2][run]
    assert one["trained"].keys() == two["trained"].keys()
    for name, value in one["trained"].items():
        torch.testing.assert_close(
            value, two["trained"][name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    moved = {
        name.partition(".")[0] for name, value in one["trained"].items() if not torch.equal(one["start"][name], value)
    }
    assert moved == {"student", "critic", "discriminator"}
    assert two["sharded"] == set(two["dtypes"])
    assert set(two["meshes"].values()) == {(2, 1) if run == "replicas" else (2,)}
    assert any(name.startswith("discriminator.") for name in two["meshes"])
