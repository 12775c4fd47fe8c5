from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fastvideo_core import RoleHandle
from fastvideo_tools.callbacks.config import GradNormConfig
from fastvideo_tools.callbacks.grad_norm import GradNormCallback


def norms(step: int, every: int, *roles: str) -> dict[str, Any]:
    handles = {}
    for name, scale in (("student", 1.0), ("critic", 10.0)):
        net = nn.Linear(2, 1)
        net.weight.grad, net.bias.grad = scale * torch.tensor([[3.0, 4.0]]), scale * torch.tensor([12.0])
        handles[name] = RoleHandle(name, {"net": net}, "toy", trainable=True)
        handles[name].optimizers["sgd"] = torch.optim.SGD(net.parameters())
    method: Any = SimpleNamespace(bundle=handles.values())
    metrics: dict[str, Any] = {}
    due = [handles[role].optimizers["sgd"] for role in roles]
    GradNormCallback(GradNormConfig(every=every)).before_optimizer_step(method, step, due, metrics)
    return metrics


def test_the_norm_of_every_due_role_is_a_metric():
    metrics = norms(1, 1, "student", "critic")
    assert {name: value.item() for name, value in metrics.items()} == {
        "grad_norm/student": 13.0,
        "grad_norm/critic": 130.0,
    }
    assert all(isinstance(value, torch.Tensor) for value in metrics.values())  # nothing waited for the device


def test_roles_that_are_not_due_have_none():
    assert list(norms(1, 1, "critic")) == ["grad_norm/critic"]


def test_every_so_many_steps():
    assert [bool(norms(step, 3, "student")) for step in (1, 2, 3, 6)] == [False, False, True, True]


def test_specs_and_configuration_import_no_torch():
    code = (
        "import sys, fastvideo_tools.plugin as p, fastvideo_tools.callbacks.config; "
        "assert 'torch' not in sys.modules; print(p.EARLY_STOP.name, p.GRAD_NORM.name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["early_stop", "grad_norm"]
