"""Options of several processes that contradict each other."""

from __future__ import annotations

import pytest

from fastvideo_core.config import check
from fastvideo_core.config.check import role_contradictions, training_contradictions
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.config.training import TrainingArgs


def found(*, frozen: bool = True, train_modules: tuple[str, ...] | None = None, **training) -> list[str]:
    args = TrainingArgs(output_dir="out", max_train_steps=1, **training)
    roles = {"student": RoleConfig(path=".", trainable=True, train_modules=train_modules)}
    if frozen:
        roles["teacher"] = RoleConfig(path=".", trainable=False)
    return [f"{'.'.join(map(str, item.path))}: {item.problem}" for item in training_contradictions(args, roles)]


@pytest.mark.parametrize(
    "training",
    [
        {"num_gpus": 8, "hsdp_shard_dim": 4},
        {"num_gpus": 8, "hsdp_shard_dim": 4, "hsdp_replicate_dim": 2},
        {"num_gpus": 8, "hsdp_replicate_dim": 8},
        {"num_gpus": 2, "frozen_cpu_offload": True},
        {"frozen_cpu_offload": True},
        {"sync_gradients_every_round": True, "gradient_accumulation_steps": 2},
    ],
)
def test_options_that_fit(training):
    assert found(**training) == []


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"num_gpus": 8, "hsdp_shard_dim": 4, "hsdp_replicate_dim": 4},
            "training.hsdp_shard_dim: hsdp_replicate_dim 4 x hsdp_shard_dim 4 is not num_gpus 8",
        ),
        ({"num_gpus": 8, "hsdp_replicate_dim": 3}, "training.hsdp_replicate_dim: found 3"),
        ({"hsdp_shard_dim": 2}, "training.hsdp_shard_dim: found 2"),
        ({"sync_gradients_every_round": True}, "gradient_accumulation_steps is 1"),
    ],
)
def test_options_that_cannot_be_meant(training, message):
    (text,) = found(**training)
    assert message in text


def test_offloading_without_a_frozen_role():
    (text,) = found(frozen=False, num_gpus=2, frozen_cpu_offload=True)
    assert "no role or network is frozen" in text
    assert found(frozen=False, train_modules=("transformer",), frozen_cpu_offload=True) == []


def test_adapters_need_a_trained_role_and_peft(monkeypatch):
    args = TrainingArgs(output_dir="out", max_train_steps=1)

    def problems(trainable: bool, installed: bool) -> list[str]:
        role = RoleConfig.model_validate({"path": ".", "trainable": trainable, "lora": {"rank": 4}})
        monkeypatch.setattr(check, "is_installed", lambda module: installed)
        return [str(item.problem) for item in role_contradictions("student", {"student": role}, args)]

    assert problems(True, True) == []
    assert "a role that is not trained" in problems(False, True)[0]
    assert "pip install 'fastvideo-core[lora]'" in problems(True, False)[0]
