"""Where training ends: students that are flow maps of Gaussians, on data N(1.7, 0.36), by exact quadrature over s and x.

The numbers are methods.md's O7, of the trigonometric form; noise levels are sigmoid(N(0.7, 1.6)).
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from fastvideo_rcm.losses import consistency_loss, consistency_tangent
from fastvideo_rcm.tangent import directional_derivative

MEAN, STD = 1.7, 0.6


def quadrature(nodes: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """x_s, s and their weights, [nodes^2] each."""
    u, of_u = np.polynomial.legendre.leggauss(nodes)
    z, of_z = np.polynomial.hermite_e.hermegauss(nodes)
    levels = [1 / (1 + np.exp(-(0.7 + 1.6 * NormalDist().inv_cdf(float((value + 1) / 2))))) for value in u]
    s = torch.tensor(levels, dtype=torch.float64).repeat_interleave(nodes)
    noise = torch.tensor(z, dtype=torch.float64).repeat(nodes)
    x = (1 - s) * MEAN + (STD**2 * (1 - s) ** 2 + s**2).sqrt() * noise
    weights = torch.tensor(np.outer(of_u / 2, of_z / of_z.sum()).flatten())
    return x, s, weights


def velocity(x: Tensor, s: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Of the student whose x0 is the clean end of the flow of N(mean, std^2)."""
    return (x - (mean + std * (x - (1 - s) * mean) / (std**2 * (1 - s) ** 2 + s**2).sqrt())) / s


def teacher(x: Tensor, s: Tensor) -> Tensor:
    variance = STD**2 * (1 - s) ** 2 + s**2
    return (s - STD**2 * (1 - s)) / variance * (x - (1 - s) * MEAN) - MEAN


def loss_and_gradient(student: Tensor, mistake: str = "") -> tuple[float, Tensor]:
    """sum w (F - sg F - g)^2 and its gradient in the student's (mean, std)."""
    x, s, weights = quadrature()
    v_teacher = teacher(x, s)
    time = 0.0 if mistake == "no time tangent" else 1000.0
    direction = -v_teacher if mistake == "the direction reversed" else v_teacher
    _, dv = directional_derivative(
        lambda x, t: velocity(x, t / 1000, *student), (x, s * 1000), (direction, torch.full_like(s, time))
    )
    given = student.clone().requires_grad_()
    v = velocity(x, s, *given)
    warmup = 0.0 if mistake == "the warm-up never rises" else 1.0
    tangent = consistency_tangent(v.detach()[:, None], dv[:, None], v_teacher[:, None], s, warmup=warmup)
    if mistake == "sign of g":
        tangent = replace(tangent, value=-tangent.value)
    terms = [consistency_loss(v[i : i + 1, None], _part(tangent, i), s[i : i + 1]) for i in range(len(s))]
    loss = 2 * (weights * torch.stack(terms)).sum()
    return loss.item(), torch.autograd.grad(loss, given)[0]


def _part(tangent, index: int):
    return replace(tangent, value=tangent.value[index : index + 1], norm=tangent.norm[index : index + 1])


def end(mistake: str = "", steps: int = 300, rate: float = 0.2) -> list[float]:
    """Where gradient descent from (0, 1) is after so many steps, the last third of a tenth of the rate; or where it left."""
    student = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for step in range(steps):
        student = student - rate * (1 if step < steps * 2 // 3 else 0.1) * loss_and_gradient(student, mistake)[1]
        if student.abs().max() > 20:
            break
    return student.tolist()


def test_loss_and_gradient_at_the_start():
    loss, gradient = loss_and_gradient(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert loss == pytest.approx(0.581512908, abs=2e-9)
    assert gradient.tolist() == pytest.approx([-0.808565154, -0.730168671], abs=2e-9)


@pytest.mark.slow
def test_training_ends_at_the_consistency_function_of_the_data():
    assert end() == pytest.approx([1.7, 0.6], abs=1e-3)


@pytest.mark.slow
def test_without_the_students_own_derivative_it_ends_at_the_teachers_one_step_error():
    assert end("the warm-up never rises") == pytest.approx([1.7, 0.34244], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["sign of g", "no time tangent", "the direction reversed"])
def test_mistakes_end_elsewhere(mistake: str):
    mean, std = end(mistake, steps=150)
    assert abs(mean - 1.7) > 0.1 or abs(std - 0.6) > 0.1, (mean, std)
