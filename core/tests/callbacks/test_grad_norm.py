from __future__ import annotations

import subprocess
import sys

import torch

from fastvideo_core.callbacks.config import GradNormConfig
from fastvideo_core.callbacks.grad_norm import GradNormCallback
from fastvideo_core.callbacks.manager import CallbackManager

from .toy_roles import optimizers, toy_method


def norms(step: int, every: int, *roles: str) -> dict[str, torch.Tensor]:
    method = toy_method()
    for name, scale in (("student", 1.0), ("critic", 10.0)):
        net = method.bundle[name].modules["net"]
        net.weight.grad, net.bias.grad = scale * torch.tensor([3.0, 4.0]), scale * torch.tensor([12.0])
    metrics: dict[str, torch.Tensor] = {}
    hook = CallbackManager({"grad_norm": GradNormCallback(GradNormConfig(every=every))}).hook
    hook.before_optimizer_step(method=method, step=step, optimizers=optimizers(method, *roles), metrics=metrics)
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


def test_the_plugins_of_core_import_no_torch():
    code = (
        "import sys, fastvideo_core.callbacks.plugins as p, fastvideo_core.callbacks.config; "
        "assert 'torch' not in sys.modules; print(p.EMA.name, p.GRAD_NORM.name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["ema", "grad_norm"]
