"""Blocks of networks that roles share are recomputed with the adapters of their forward, compiled or not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.tensor import DTensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.errors import ConfigError, ContractError
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.lora import add_lora, initialise_lora
from fastvideo_core.weights.shared import share_networks

KINDS = [None, "full", "ops", "block_skip"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.out = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(torch.tanh(self.up(x)))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def training(**options: Any) -> TrainingArgs:
    return TrainingArgs(output_dir="out", max_train_steps=1, **options)


def roles_on(network: nn.Module, **options: Any) -> RoleManager:
    """A teacher, and a student and a critic on its network, placed; adapters of no zeros."""
    teacher = RoleHandle("teacher", {"net": network}, block_classes=(Block,))
    handles = {"teacher": teacher}
    for name in ("student", "critic"):
        handles[name] = RoleHandle(name, {"net": Network()}, trainable=True, block_classes=(Block,))
        share_networks(handles[name], teacher)
        add_lora(handles[name], LoraConfig(rank=2))
    bundle = RoleManager(handles)
    shard_roles(bundle, training(**options))
    generator = torch.Generator().manual_seed(1)
    for handle in (handles["student"], handles["critic"]):
        for _, parameter in handle.named_parameters():
            parameter.data.normal_(generator=generator)
    return bundle


def call(bundle: RoleManager, role: str, x: Tensor) -> Tensor:
    with bundle[role].active():
        out: Tensor = bundle[role].modules["net"](x)
        return out


def gradients(bundle: RoleManager, shapes: tuple[int, ...] = (3,)) -> list[Tensor]:
    """Of a loss through student, critic and teacher, whose last call is the critic's of other things."""
    for samples in shapes:
        x = torch.linspace(-1, 1, samples * 4).reshape(samples, 4)
        made = call(bundle, "student", x).repeat(1, 2)
        loss = call(bundle, "critic", made).square().sum() + call(bundle, "teacher", made).sum()
        with torch.no_grad():
            call(bundle, "critic", x.repeat(2, 1))
        loss.backward()
    found = [p.grad for role in ("student", "critic") for _, p in bundle[role].named_parameters()]
    assert all(p.grad is None for _, p in bundle["teacher"].named_parameters())
    return found


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_is_that_of_a_network_that_recomputes_nothing(network, kind):
    expected = gradients(roles_on(copy.deepcopy(network)))
    found = gradients(roles_on(network, enable_gradient_checkpointing_type=kind))
    assert len(found) == 16
    assert all(one is not None and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "training", [{"offload_blocks": 1}, {"frozen_cpu_offload": True}, {"offload_activations": True}], ids=str
)
def test_a_base_and_block_inputs_in_host_memory_change_no_gradient(network, training):
    expected = gradients(roles_on(copy.deepcopy(network)))
    found = gradients(roles_on(network, enable_gradient_checkpointing_type="full", **training))
    away = [name for name, parameter in network.named_parameters() if isinstance(parameter, DTensor)]
    if dist.is_initialized():
        dist.destroy_process_group()
    # gathered weights of the head lie otherwise in memory, which the rounding of the CPU's products shows
    near = 1e-5 if "frozen_cpu_offload" in training else 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=near, rtol=0)
    assert bool(away) is ("offload_activations" not in training)
    assert not any(".lora_" in name for name in away)


@pytest.mark.parametrize(
    ("kind", "limit"), [*((kind, 1) for kind in KINDS), pytest.param("full", 8, marks=pytest.mark.slow)]
)
def test_compiled_blocks_have_these_gradients_also_past_the_limit_of_graphs(network, monkeypatch, kind, limit):
    counter = CompileCounterWithBackend("aot_eager")
    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: plain(self, backend=counter))
    torch._dynamo.reset()
    expected = gradients(roles_on(copy.deepcopy(network)), (3, 5))
    bundle = roles_on(network, enable_gradient_checkpointing_type=kind, enable_torch_compile=True)
    with torch._dynamo.config.patch(recompile_limit=limit):
        found = gradients(bundle, (3, 5))
    assert counter.frame_count > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_what_a_family_binds_holds_at_every_recompute():
    """Its own switch, which a block multiplies by, is another one by the time of two backward passes through one forward."""
    switch = [2.0]

    @contextmanager
    def switched(value: float) -> Iterator[None]:
        before, switch[0] = switch[0], value
        yield
        switch[0] = before

    class Scaled(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.tanh(switch[0] * self.up(x)).sum()

    network = Network()
    network.blocks = nn.ModuleList([Scaled(), Scaled()])
    found = []
    for kind in KINDS:
        handle = RoleHandle("student", {"net": copy.deepcopy(network)}, trainable=True, block_classes=(Block,))
        handle.bindings += (lambda: partial(switched, switch[0]),)
        shard_roles(RoleManager({"student": handle}), training(enable_gradient_checkpointing_type=kind))
        loss = handle.modules["net"](torch.ones(3, 4)).square().sum()
        with switched(5.0):
            loss.backward(retain_graph=kind != "ops")
            if kind != "ops":  # of which torch itself refuses a second one
                loss.backward()
        found.append([p.grad / (1 if kind == "ops" else 2) for p in handle.trainable_parameters()])
    assert all(torch.equal(one, other) for one, *others in zip(*found, strict=True) for other in others)


def test_initial_adapters_are_those_of_a_network_of_its_own(network):
    alone = RoleHandle("critic", {"net": copy.deepcopy(network)}, trainable=True, block_classes=(Block,))
    add_lora(alone, LoraConfig(rank=2))
    bundle = roles_on(network)
    for handle in (alone, bundle["critic"]):
        initialise_lora(handle, seed=3)
    pairs = zip(alone.trainable_parameters(), bundle["critic"].trainable_parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert alone.trainable_parameters()[0].abs().sum() > 0


def test_a_copy_has_adapters_of_its_own_on_the_same_network(network):
    teacher = RoleHandle("teacher", {"net": network}, block_classes=(Block,))
    student = RoleHandle("student", {"net": Network()}, trainable=True, block_classes=(Block,))
    share_networks(student, teacher)
    target = student.copy("target")
    for handle in (student, target):
        add_lora(handle, LoraConfig(rank=2))
        initialise_lora(handle, seed=3)
    assert target.modules["net"] is network
    pairs = list(zip(student.named_parameters(), target.named_parameters(), strict=True))
    assert pairs
    assert all(one is not other and torch.equal(one, other) for (_, one), (_, other) in pairs)
    assert [p.requires_grad for _, p in target.named_parameters()] == [False] * len(pairs)


def test_calls_for_nobody_and_active_dropout_are_errors(network):
    expected = network(torch.ones(1, 4))
    bundle = roles_on(network)
    for _ in range(2):  # before and after calls for somebody
        with pytest.raises(ContractError, match="nothing says for whom"):
            network(torch.ones(1, 4))
        assert not torch.equal(call(bundle, "student", torch.ones(1, 4)), expected)
        assert torch.equal(call(bundle, "teacher", torch.ones(1, 4)), expected)
    dropping = Network()
    dropping.blocks[0].out[1].p = 0.1
    with pytest.raises(ConfigError, match="have dropout"):
        roles_on(dropping)
