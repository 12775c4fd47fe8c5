"""The flow-matching loss by hand."""

import torch

from fastvideo_finetune.losses import flow_matching_loss


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
