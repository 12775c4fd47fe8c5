"""AdamW with moments of one byte: how far it is from AdamW, and what a checkpoint keeps of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastvideo_core import RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.checkpoint.optimizer_state import collect, restore
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.optim import build_optimizer

LARGE = (80, 64)  # of which bitsandbytes' moments have 8 bits; smaller ones are float32
STEPS = 5


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip("bitsandbytes")


def made(kind: str) -> tuple[RoleHandle, torch.optim.Optimizer]:
    torch.manual_seed(0)
    handle = RoleHandle("student", {"net": nn.Linear(LARGE[1], LARGE[0])}, trainable=True)
    training = TrainingArgs(
        output_dir="out",
        max_train_steps=STEPS,
        learning_rate=1e-3,
        weight_decay=0.1,
        optimizer=kind,  # type: ignore[arg-type]  # one of its values
    )
    roles = {"student": RoleConfig(path=".", trainable=True)}
    rest: dict[str, Any] = {key: {} for key in ("pipeline_config", "method_config", "callbacks", "source")}
    cfg = RunConfig(recipe=RecipeConfig(family="toy", method="toy"), roles=roles, training=training, **rest)
    return handle, build_optimizer(handle, cfg)


def train(handle: RoleHandle, optimizer: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    """The weights after these steps, whose data are their own."""
    for step in steps:
        x = torch.randn(16, LARGE[1], generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (handle.modules["net"](x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in handle.trainable_parameters()]


def test_five_steps_are_near_adamw_s_and_moments_take_a_byte():
    wanted = train(*made("adamw"), range(STEPS))
    handle, optimizer = made("adamw8bit")
    start = [parameter.detach().clone() for parameter in handle.trainable_parameters()]
    found = train(handle, optimizer, range(STEPS))
    moments = [optimizer.state[parameter]["state1"] for parameter in handle.trainable_parameters()]
    assert [one.dtype for one in moments] == [torch.uint8, torch.float32]
    far = [(one - other).abs().max().item() for one, other in zip(found, wanted, strict=True)]
    assert 0 < far[0] < 3.1e-3
    assert far[1] < 1e-6
    moved = max((one - other).abs().max().item() for one, other in zip(wanted, start, strict=True))
    assert moved > 4e-3  # as far as five steps of 1e-3 go


def test_it_goes_on_from_what_a_checkpoint_keeps_to_the_bit():
    handle, optimizer = made("adamw8bit")
    names = {id(parameter): name for name, parameter in handle.named_parameters()}
    train(handle, optimizer, range(2))
    copied: Any = collect(optimizer, names, "student")
    copied["state"] = {
        name: {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
        for name, state in copied["state"].items()
    }
    other, again = made("adamw8bit")
    other.modules["net"].load_state_dict(handle.modules["net"].state_dict())
    restore(again, copied, {id(parameter): name for name, parameter in other.named_parameters()}, "student")
    wanted, found = train(handle, optimizer, range(2, STEPS)), train(other, again, range(2, STEPS))
    assert all(torch.equal(one, two) for one, two in zip(wanted, found, strict=True))
