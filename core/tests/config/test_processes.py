"""Options of several processes that contradict each other."""

from __future__ import annotations

import pytest

from fastvideo_core.config import check
from fastvideo_core.config.check import role_contradictions, training_contradictions
from fastvideo_core.config.run import LoraConfig, RoleConfig
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
        {"num_gpus": 8, "hsdp_replicate_dim": 8, "sequence_parallel": 4},
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
        ({"num_gpus": 8, "sequence_parallel": 3}, "training.sequence_parallel: found 3"),
        ({"num_gpus": 2, "sequence_parallel": 2, "enable_torch_compile": True}, "breaks a block's graph"),
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


def test_streamed_blocks_need_frozen_weights_that_are_not_away_anyhow():
    assert found(offload_blocks=2) == []
    (text,) = found(frozen=False, offload_blocks=2)
    assert "training.offload_blocks: found 2, but all weights are trained" in text
    (text,) = found(offload_blocks=2, frozen_cpu_offload=True)
    assert "found 2, but frozen_cpu_offload keeps all of it" in text
    adapted = {"student": RoleConfig(path=".", trainable=True, lora=LoraConfig(rank=1))}
    args = TrainingArgs(output_dir="out", max_train_steps=1, offload_blocks=2)
    assert list(training_contradictions(args, adapted)) == []


def test_blocks_of_a_shared_base_on_the_host_are_not_compiled_on_several_processes():
    roles = {"teacher": RoleConfig(path=".", trainable=False)}
    roles["student"] = RoleConfig(path=".", trainable=True, lora=LoraConfig(rank=1), share="teacher")

    def texts(**options) -> list[str]:
        options = {"offload_blocks": 1, "num_gpus": 2, "enable_torch_compile": True, **options}
        args = TrainingArgs(output_dir="out", max_train_steps=1, enable_gradient_checkpointing_type="ops", **options)
        return [str(one.problem) for one in training_contradictions(args, roles)]

    (text,) = texts()
    assert "found 1, and enable_torch_compile: a shared base's adapters" in text
    assert texts(num_gpus=1) == texts(enable_torch_compile=False) == texts(offload_blocks=0) == []


def test_block_inputs_on_the_host_need_blocks_that_are_recomputed_and_not_compiled():
    (text,) = found(offload_activations=True)
    assert "keeps the inputs of blocks that are recomputed and not compiled" in text
    assert (
        len(found(offload_activations=True, enable_gradient_checkpointing_type="full", enable_torch_compile=True)) == 1
    )
    assert found(offload_activations=True, enable_gradient_checkpointing_type="full") == []


def test_optimizers_of_one_process_and_of_a_library(monkeypatch):
    monkeypatch.setattr(check, "is_installed", lambda name: False)
    (text,) = found(optimizer="adamw8bit")
    assert "bitsandbytes is not installed" in text
    assert "pip install 'fastvideo-core[bitsandbytes]'" in text
    monkeypatch.setattr(check, "is_installed", lambda name: True)
    assert found(optimizer="adamw8bit") == []
    (text,) = found(optimizer="adamw8bit", num_gpus=2)
    assert "adamw8bit, which needs whole weights, and several processes hold shards of them" in text


def test_adapters_need_a_trained_role_and_peft(monkeypatch):
    args = TrainingArgs(output_dir="out", max_train_steps=1)

    def problems(trainable: bool, installed: bool) -> list[str]:
        role = RoleConfig.model_validate({"path": ".", "trainable": trainable, "lora": {"rank": 4}})
        monkeypatch.setattr(check, "is_installed", lambda module: installed)
        return [str(item.problem) for item in role_contradictions("student", {"student": role}, args)]

    assert problems(True, True) == []
    assert "a role that is not trained" in problems(False, True)[0]
    assert "pip install 'fastvideo-core[lora]'" in problems(True, False)[0]
