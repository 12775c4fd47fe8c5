"""Where the method ends on Gaussian data, exactly: its own loss, minimised level by level from the clean end.

The student is a table of affine maps f(x, t_i) = a_i x + b_i; each level's loss is a quadratic of its two numbers, so that three
gradients of it tell the minimum. Four samples have the data's and the noise's first two moments, which is all that counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_testing.runs import build_run, toy_family

MEAN, STD = 1.7, 0.6


def run_of(
    folder: Path, *, teacher: bool = True, shift: float = 5.0, training: Any = None, **method: Any
) -> dict[str, Any]:
    """A run.yaml on the toy family with one-dimensional Gaussian data; `method` are options of method_config."""
    teachers = {"teacher": {"path": "toy/exact", "trainable": False}} if teacher else {}
    return {
        "recipe": {"family": "toy", "method": "consistency"},
        "roles": {"student": {"path": "toy/student", "trainable": True}, **teachers},
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 10,
            "train_batch_size": 4,
            "learning_rate": 1e-3,
            **(training or {}),
        },
        "pipeline_config": {"flow_shift": shift, "sampler_kind": "sde", "data": {"means": [[MEAN]], "std": STD}},
        "method_config": method,
    }


def built(folder: Path, **options: Any) -> Any:
    """The method of a run, and its batches."""
    with toy_family():
        runtime = build_run(folder, run_of(folder, **options))
    return runtime.method


class Exact(nn.Module):
    """The velocity of data N(mean + condition * step, std^2)."""

    def __init__(self, mean: float = MEAN, step: float = 0.0, std: float = STD) -> None:
        super().__init__()
        self.mean, self.step, self.std = mean, step, std

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        s, mean = sigma[:, None], self.mean + self.step * condition
        variance = (1 - s) ** 2 * self.std**2 + s**2
        return (s - (1 - s) * self.std**2) / variance * (x - (1 - s) * mean) - mean


class Table(nn.Module):
    """Velocities (x - a_i x - b_i) / sigma_i of the level nearest to sigma; 0 at sigma 0, where f(x, 0) = x."""

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.levels = levels.double()
        self.maps = [torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in levels]

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        index = (self.levels - sigma[:, None]).abs().argmin(1)
        a, b = torch.stack([self.maps[int(i)] for i in index]).T[..., None]
        s = sigma[:, None].double()
        return torch.where(s > 0, (x - a * x - b) / s.clamp(min=1e-9), torch.zeros_like(x))


def use(method: Any, role: str, network: nn.Module) -> None:
    """Puts a network into a role."""
    method.bundle[role].modules["transformer"] = network


def four_samples() -> tuple[TrainingBatch, Tensor]:
    """A batch x0 = MEAN +- STD with noise e = +-1, all four pairs, float64."""
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    ones = torch.ones(4, 1, dtype=torch.float64)
    batch = TrainingBatch(MEAN + STD * signs[:, :1], {"condition": ones}, {"condition": 0 * ones})
    return batch, signs[:, 1:]


def minimise(method: Any, index: int, table: Table) -> float:
    """Sets the table's map of a level to the minimum of the method's loss at the step from there; the loss there."""
    batch, noise = four_samples()
    t, next_t = method.levels[index].expand(4), method.levels[index + 1].expand(4)

    def gradient(at: Tensor) -> Tensor:
        table.maps[index] = at.clone().requires_grad_()
        loss, _ = method.loss_at(batch, noise, t, next_t)
        (found,) = torch.autograd.grad(loss, table.maps[index])
        return found

    start = gradient(torch.zeros(2, dtype=torch.float64))
    hessian = torch.stack([gradient(unit) - start for unit in torch.eye(2, dtype=torch.float64)])
    table.maps[index] = torch.linalg.solve(hessian, -start).requires_grad_()
    return float(method.loss_at(batch, noise, t, next_t)[0].detach())


def end_point(method: Any, levels: tuple[int, ...] = (0,)) -> list[tuple[float, float]]:
    """(a, b) at these levels of the path (0 is pure noise) where the method's loss is least at every level."""
    table = Table(method.levels / 1000)
    use(method, "student", table)
    for index in reversed(range(len(method.levels) - 1)):
        minimise(method, index, table)
    return [tuple(table.maps[level].tolist()) for level in levels]  # type: ignore[misc]
