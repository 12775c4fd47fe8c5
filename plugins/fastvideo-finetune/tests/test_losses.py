"""The flow-matching loss and its weightings by hand."""

import math

import pytest
import torch

from fastvideo_finetune.losses import flow_matching_loss, weight_of_level


def test_the_loss_is_the_weighted_mean_over_samples():
    prediction = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    target = torch.zeros(2, 2)
    assert flow_matching_loss(prediction, target, torch.tensor([1.0, 0.5])).item() == (1 * 1 + 0.5 * 4) / 2


def test_masked_elements_do_not_dilute_the_mean():
    prediction = torch.tensor([[2.0, 100.0]])
    weight = torch.tensor([[1.0, 0.0]])
    assert flow_matching_loss(prediction, torch.zeros(1, 2), torch.ones(1), weight).item() == 4.0


def test_bfloat16_predictions_are_compared_in_float32():
    prediction = torch.full((1, 1), 1.0, dtype=torch.bfloat16)
    target = torch.full((1, 1), 0.999)
    assert 0 < flow_matching_loss(prediction, target, torch.ones(1)).item() < 1e-5


def test_weightings_match_their_formulas():
    sigma = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weight_of_level("none", sigma), torch.ones_like(sigma))
    torch.testing.assert_close(weight_of_level("sigma_sqrt", sigma), 1 / sigma**2)
    torch.testing.assert_close(weight_of_level("cosmap", sigma)[1], torch.tensor(4 / math.pi, dtype=torch.float64))


@pytest.mark.parametrize("weighting", ["none", "sigma_sqrt", "cosmap"])
def test_weights_stay_finite_at_zero_noise(weighting):
    assert torch.isfinite(weight_of_level(weighting, torch.zeros(1))).all()


def test_an_unknown_weighting_says_what_is_allowed():
    with pytest.raises(ValueError, match="unknown loss weighting 'x'; allowed: none, sigma_sqrt, cosmap"):
        weight_of_level("x", torch.zeros(1))
