"""The tangent and the loss of one term, by hand: numbers of methods.md, O3 and O8, which sCM's trigonometric form gives too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvideo_rcm.losses import ConsistencyTangent, consistency_loss, consistency_tangent
from fastvideo_rcm.tangent import directional_derivative

MEAN, STD = 1.7, 0.6


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def teacher(x: Tensor, s: Tensor) -> Tensor:
    """The exact velocity of data N(1.7, 0.36)."""
    variance = STD**2 * (1 - s) ** 2 + s**2
    return (s - STD**2 * (1 - s)) / variance * (x - (1 - s) * MEAN) - MEAN


def flow_map(mean: float, std: float):
    """The student that maps x_s to the clean end of its own flow, as if the data were N(mean, std^2)."""

    def velocity(x: Tensor, s: Tensor) -> Tensor:
        x0 = mean + std * (x - (1 - s) * mean) / (std**2 * (1 - s) ** 2 + s**2).sqrt()
        return (x - x0) / s

    return velocity


def unnormalised(student, x: Tensor, s: Tensor, warmup: float) -> Tensor:
    found = tangent_of(student, x, s, warmup)
    return found.value * (found.norm.reshape(-1, *[1] * (x.ndim - 1)) + 0.1)


def tangent_of(student, x: Tensor, s: Tensor, warmup: float) -> ConsistencyTangent:
    v_teacher = teacher(x, s.reshape(-1, 1))
    v, dv = directional_derivative(
        lambda x, t: student(x, t.reshape(-1, 1) / 1000), (x, s * 1000), (v_teacher, torch.full_like(s, 1000))
    )
    return consistency_tangent(v, dv, v_teacher, s, warmup=warmup)


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (teacher, {0.0: 0.0, 0.5: -0.092059466, 1.0: -0.184118932}),
        (flow_map(1.0, 0.8), {0.0: 0.053503640, 0.5: -0.027474083, 1.0: -0.108451806}),
        (flow_map(MEAN, STD), {1.0: 0.0}),
    ],
    ids=["the teacher", "another Gaussian", "the consistency function"],
)
def test_the_tangent_of_one_sample(student, expected: dict[float, float]):
    for warmup, value in expected.items():
        found = unnormalised(student, tensor(2.0)[None], tensor(0.8), warmup)
        torch.testing.assert_close(found, tensor(value)[None], rtol=0, atol=6e-10, msg=f"r = {warmup}: {found}")


def test_the_loss_of_a_sample_of_two_elements_and_its_gradient():
    x, s = tensor(2.0, 0.5)[None], tensor(0.8)
    student = flow_map(1.0, 0.8)
    found = tangent_of(student, x, s, 1.0)
    torch.testing.assert_close(found.norm, tensor(0.171924366), rtol=0, atol=6e-10)
    torch.testing.assert_close(found.value, tensor(-0.398830775, -0.490586322)[None], rtol=0, atol=6e-10)
    v = student(x, s[:, None]).requires_grad_()
    loss = consistency_loss(v, found, s)
    loss.backward()
    elements = 2  # the mean's; O8 sums (F - sg F - g)^2, without the 0.5
    assert float(2 * elements * loss.detach()) == pytest.approx(0.399740926, abs=6e-10)
    torch.testing.assert_close(2 * elements * v.grad, tensor(0.657768565, 0.809095689)[None], rtol=0, atol=6e-10)


def test_elements_of_weight_0_count_nothing():
    x, s = tensor(2.0, 0.5)[None], tensor(0.8)
    student, given = flow_map(1.0, 0.8), tensor(1.0, 0.0)[None]
    v_teacher = teacher(x, s[:, None])
    v, dv = student(x, s[:, None]), tensor(2.200739313, 5.0)[None]
    both = consistency_tangent(v, dv, v_teacher, s, warmup=1.0, loss_weight=given)
    alone = consistency_tangent(v[:, :1], dv[:, :1], v_teacher[:, :1], s, warmup=1.0)
    torch.testing.assert_close(both.norm, alone.norm)
    torch.testing.assert_close(consistency_loss(v, both, s, given), consistency_loss(v[:, :1], alone, s))


def test_samples_do_not_scale_each_other():
    s = tensor(0.8, 0.3)
    x = tensor(2.0, 0.5, 9.0, -4.0).reshape(2, 2)
    together = tangent_of(flow_map(1.0, 0.8), x, s, 1.0)
    for index in range(2):
        part = slice(index, index + 1)
        alone = tangent_of(flow_map(1.0, 0.8), x[part], s[part], 1.0)
        torch.testing.assert_close(together.value[part], alone.value)
