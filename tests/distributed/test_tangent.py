"""Forward-mode derivatives through sharded networks equal those of one process, and leave training as it was."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.ranks import run_workers

pytestmark = pytest.mark.distributed

VARIANTS = {
    "plain": {},
    "checkpointed": {"training": {"enable_gradient_checkpointing_type": "full"}},
    "lora": {"student": {"lora": {"rank": 4}}},
    "fp8": {"student": {"lora": {"rank": 4}, "base_precision": "fp8"}},
    "fp8-bf16": {
        "student": {"lora": {"rank": 4}, "base_precision": "fp8"},
        "training": {"mixed_precision": "bf16", "enable_gradient_checkpointing_type": "full"},
    },
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory, tiny_wan, latent_data):
    """By number of processes and variant: value, tangent and gradients of the student."""
    found = {}
    for world_size in (1, 2):
        out = tmp_path_factory.mktemp(f"world-{world_size}")
        runs = {
            name: {
                "recipe": {"family": "wan", "method": "finetune"},
                "roles": {"student": {"path": str(tiny_wan), "trainable": True, **variant.get("student", {})}},
                "training": {
                    "output_dir": str(out / name),
                    "data_path": str(latent_data),
                    "max_train_steps": 1,
                    "num_gpus": world_size,
                    **variant.get("training", {}),
                },
            }
            for name, variant in VARIANTS.items()
        }
        run_workers(world_size, "tangents", out, runs=runs)
        found[world_size] = torch.load(out / "tangents.pt")
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_have_the_tangent_and_the_gradients_of_one(seen, variant):
    one, two = seen[1][variant], seen[2][variant]
    torch.testing.assert_close(two["value"], one["value"], rtol=1e-5, atol=1e-5)
    scale = float(one["tangent"].abs().max())
    torch.testing.assert_close(two["tangent"], one["tangent"], rtol=1e-5, atol=1e-5 * scale)
    assert one["gradients"].keys() == two["gradients"].keys() != set()
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_checkpointing_changes_no_tangent(seen):
    torch.testing.assert_close(seen[2]["checkpointed"]["tangent"], seen[2]["plain"]["tangent"], rtol=0, atol=0)
