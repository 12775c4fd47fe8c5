"""`fits`: which changes it finds, in which order, given what runs take; and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from fastvideo_core import LoraConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.errors import UserError
from fastvideo_tools.commands.fits import MOST_BLOCKS, Search, run

BLOCKS = 40


def run_of(*, lora: bool = True, **training: Any) -> RunConfig:
    trained = RoleConfig(path="base", trainable=True, lora=LoraConfig(rank=64) if lora else None)
    roles = {"student": trained, "teacher": RoleConfig(path="base", trainable=False), "critic": trained}
    args = TrainingArgs(output_dir="out", max_train_steps=1, **training)
    recipe, rest = RecipeConfig(family="toy", method="toy"), SimpleNamespace()
    return RunConfig(recipe, roles, args, pipeline_config=rest, method_config=rest, callbacks={}, source="run.yaml")  # type: ignore[arg-type]


@dataclass
class Weighed(Search):
    """Says of a run what it takes: 40 for each base, 1 of it a block's, 10 of each rank 64, and 20, 8 or 4 of activations."""

    def estimate(self, cfg: RunConfig) -> Any:
        training, away = cfg.training, min(cfg.training.offload_blocks, BLOCKS)
        base, held = 0.0, 0.0
        for role in cfg.roles.values():
            frozen = role.lora is not None or not role.trainable
            size = {"fp8": 0.5, "nf4": 0.25}.get(getattr(role, "base_precision", None), 1.0)
            base += (BLOCKS - away * frozen) * size * (role.share is None)
            held += role.lora.rank / 64 * 10 if role.lora is not None else 120 * role.trainable
        if training.optimizer == "adamw8bit":
            held *= 0.8
        kept = 20 if training.enable_gradient_checkpointing_type is None else 8 - 4 * training.offload_activations
        return SimpleNamespace(peak=(base + held) / training.num_gpus + kept, host=away)


def plan(memory: float, **options: Any) -> tuple[tuple[str, ...], float] | None:
    found = Weighed(SimpleNamespace(cfg=run_of(**options))).plan(memory)  # type: ignore[arg-type]
    return None if found is None else (found.changes, found.peak)


def test_nothing_is_changed_that_fits():
    assert plan(160) == ((), 160)


def test_changes_that_leave_results_come_first_and_no_more_than_are_needed():
    recomputed = "training.enable_gradient_checkpointing_type: full"
    shared = ("roles.student.share: teacher", "roles.critic.share: teacher")
    assert plan(150) == ((recomputed,), 148)
    assert plan(70) == ((recomputed, *shared), 68)
    assert plan(64) == ((recomputed, "training.offload_activations: true", *shared), 64)


@pytest.mark.parametrize(("memory", "count"), [(63, 1), (50, 14), (24, 40)])
def test_as_few_blocks_wait_on_the_host_as_are_enough(memory, count):
    changes, peak = plan(memory)
    assert f"training.offload_blocks: {count}" in changes
    assert peak == 64 - count == memory
    assert count < MOST_BLOCKS


def test_no_blocks_wait_where_those_of_a_shared_base_would_be_compiled_on_several_gpus():
    blocks, compiled = (plan(28, num_gpus=2, enable_torch_compile=compiles)[0] for compiles in (False, True))
    assert "training.offload_blocks" in str(blocks)
    assert "roles.teacher.base_precision: fp8" in compiled
    assert "training.offload_blocks" not in str(compiled)


def test_changes_of_results_come_after_those_and_more_gpus_last():
    changes, peak = plan(20)
    assert "training.optimizer: adamw8bit" in changes
    assert peak == 20
    changes, _ = plan(10)
    assert "roles.student.lora: {rank: 16}" in changes
    assert not any("num_gpus" in one for one in changes)
    changes, _ = plan(5)
    assert any("num_gpus" in one for one in changes)
    assert not any("adamw8bit" in one for one in changes)
    assert plan(4) is None


def test_whole_weights_become_adapters_where_all_else_is_not_enough():
    changes, _ = plan(100, lora=False)
    assert "roles.student.lora: {rank: 64}" in changes
    assert "roles.critic.lora: {rank: 64}" in changes


def test_a_size_that_no_gpu_has_is_refused():
    with pytest.raises(UserError, match=r"--gpu-memory: found -1"):
        run(SimpleNamespace(gpu_memory=-1.0))  # type: ignore[arg-type]
