"""The loss by hand: one term of consistency distillation (oracle O6b), the pseudo-Huber form, weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastvideo_consistency.losses import consistency_loss
from fastvideo_core.contracts.batch import TrainingBatch

from .gaussian import Exact, built, use


class Shifted(nn.Module):
    """The exact velocity plus a number."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = Exact()
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.exact(x, sigma, condition) + self.offset
        return out


def test_one_term_has_the_known_points_loss_and_gradient(tmp_path: Path) -> None:
    """x0 = 1, e = -0.5, the step from level 24 of 48; student = target = teacher. Without a stop-gradient at the target the
    gradient would be 70 times smaller, -9.2476e-05, while every fixed point stays where it is."""
    method = built(tmp_path, teacher_guidance_scale=1.0)
    student = Shifted()
    use(method, "student", student)
    method.target = method.student
    ones = torch.ones(1, 1, dtype=torch.float64)
    batch, noise = TrainingBatch(ones, {"condition": ones}, {"condition": 0 * ones}), -0.5 * ones
    t, next_t = method.levels[24:25], method.levels[25:26]
    assert [float(t), float(next_t)] == pytest.approx([833.333333, 821.428571], abs=1e-4)

    noisy = method.adapter.add_noise(batch.latents, noise, t)
    ahead = method.one_step_ahead(noisy, noise, t, next_t, batch)
    assert float(noisy) == pytest.approx(-0.25, abs=1e-7)
    assert float(ahead) == pytest.approx(-0.222791798, abs=1e-7)
    assert float(method.clean_end(method.student, noisy, t, batch).detach()) == pytest.approx(1.654574132, abs=1e-7)
    assert float(method.clean_end(method.target, ahead, next_t, batch).detach()) == pytest.approx(1.650690136, abs=1e-7)

    loss, _ = method.loss_at(batch, noise, t, next_t)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.508542576e-05, rel=1e-4)
    assert student.offset.grad is not None
    assert float(student.offset.grad) == pytest.approx(-6.473326844e-03, rel=1e-4)


X0 = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
TARGET = torch.tensor([[0.0, 4.0], [0.0, 1.0]])


def test_the_squared_loss_is_the_mean_over_samples_of_their_mean_square() -> None:
    assert float(consistency_loss(X0, TARGET)) == (9 + 16) / 2 / 2


def test_the_pseudo_huber_loss_of_a_sample_is_its_norm_less_a_constant() -> None:
    """sqrt(|d|^2 + c^2 D) - c sqrt(D) = sqrt(25 + 2 c^2) - c sqrt(2) of D = 2 elements, divided by sqrt(2); 0 of the second."""
    c = 0.5
    found = consistency_loss(X0, TARGET, kind="pseudo_huber", huber_constant=c)
    whole = (25 + 2 * c**2) ** 0.5 - c * 2**0.5
    assert float(found) == pytest.approx(whole / 2**0.5 / 2)


@pytest.mark.parametrize("kind", ["squared", "pseudo_huber"])
def test_the_gradient_goes_to_the_student_alone_and_descent_moves_it_to_the_target(kind: str) -> None:
    x0, target = X0.clone().requires_grad_(), TARGET.clone().requires_grad_()
    consistency_loss(x0, target, kind=kind, huber_constant=0.5).backward()
    assert target.grad is None
    norm = 1.0 if kind == "squared" else 2 * (12.5 + 0.25) ** 0.5
    expected = torch.tensor([[3.0, -4.0], [0.0, 0.0]]) / norm / 2  # d of two elements and two samples
    torch.testing.assert_close(x0.grad, expected)


@pytest.mark.parametrize("kind", ["squared", "pseudo_huber"])
def test_elements_of_weight_0_take_no_part_and_a_video_twice_as_large_has_the_same_loss(kind: str) -> None:
    loss = consistency_loss(X0, TARGET, kind=kind)
    wide, beside = torch.cat([X0, X0], dim=1), torch.cat([TARGET, TARGET], dim=1)
    assert float(consistency_loss(wide, beside, kind=kind)) == pytest.approx(float(loss))
    spoiled, weight = torch.cat([X0, 100 + X0], dim=1), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert float(consistency_loss(spoiled, beside, kind=kind, loss_weight=weight)) == pytest.approx(float(loss))


def test_bfloat16_is_compared_in_float32() -> None:
    loss = consistency_loss(torch.full((1, 1), 1.0, dtype=torch.bfloat16), torch.full((1, 1), 0.999))
    assert loss.dtype is torch.float32
    assert float(loss) == pytest.approx(1e-6, rel=1e-3)
