"""DMD2's losses by hand (oracle 2)."""

import pytest
import torch

from fastvideo_dmd2.losses import NORMALISER_FLOOR, critic_loss, dmd_gradient, dmd_loss

X = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
REAL = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
FAKE = torch.tensor([[2.0, 0.0]], dtype=torch.float64)


def loss_and_gradient(x, real, fake):
    x = x.clone().requires_grad_()
    loss = dmd_loss(x, dmd_gradient(x, real, fake).value)
    loss.backward()
    return loss.item(), x.grad


def test_the_hand_computed_sample():
    loss, gradient = loss_and_gradient(X, REAL, FAKE)
    assert loss == 0.5
    assert gradient.tolist() == [[0.5, -0.5]]


def test_the_gradient_points_from_real_to_fake_so_that_descent_moves_towards_real():
    x = torch.tensor([[0.0]])
    _, gradient = loss_and_gradient(x, real=torch.tensor([[1.0]]), fake=torch.tensor([[-1.0]]))
    assert (x - gradient).item() > 0


def test_samples_of_a_batch_are_normalised_on_their_own():
    _, alone = loss_and_gradient(X, REAL, FAKE)
    _, together = loss_and_gradient(torch.cat([X, 10 * X]), torch.cat([REAL, 10 * REAL]), torch.cat([FAKE, 10 * FAKE]))
    # the mean over two samples halves each one's gradient; nothing else may differ
    torch.testing.assert_close(2 * together, torch.cat([alone, alone]))


def test_no_gradient_flows_through_the_scores():
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    x = X.clone().requires_grad_()
    dmd_loss(x, dmd_gradient(x, real, fake).value).backward()
    assert real.grad is None
    assert fake.grad is None


def test_identical_scores_and_a_perfect_sample_stay_finite_through_the_floor():
    gradient = dmd_gradient(X, X, X)
    assert gradient.normaliser.item() == NORMALISER_FLOOR
    assert gradient.value.abs().max() == 0


def test_non_finite_scores_are_not_hidden():
    broken = REAL.clone()
    broken[0, 0] = float("nan")
    assert torch.isnan(dmd_gradient(X, broken, FAKE).value).any()


def test_bfloat16_scores_are_combined_in_float32():
    gradient = dmd_gradient(X.bfloat16(), REAL.bfloat16(), FAKE.bfloat16())
    assert gradient.value.dtype is torch.float32


def test_elements_of_weight_zero_take_no_part():
    x, real, fake = (torch.cat([v, torch.full((1, 1), 100.0, dtype=v.dtype)], dim=1) for v in (X, REAL, FAKE))
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    gradient = dmd_gradient(x, real, fake, weight)
    assert gradient.normaliser.item() == 1.0
    assert dmd_loss(x, gradient.value, weight).item() == pytest.approx(0.5)


def test_the_critic_loss_is_the_mean_squared_error_per_sample():
    prediction, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert critic_loss(prediction, target).item() == 2.5


def test_the_critic_loss_of_a_bfloat16_prediction_is_in_float32():
    prediction, target = torch.full((1, 1), 1.0, dtype=torch.bfloat16), torch.full((1, 1), 0.999)
    loss = critic_loss(prediction, target)
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)  # in bfloat16 both are 1
