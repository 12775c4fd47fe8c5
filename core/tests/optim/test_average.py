"""Exponential averages of weights."""

import pytest
import torch

from fastvideo_core.optim import move_averages


def test_the_average_of_one_two_three_from_zero_is_the_known_one():
    average = torch.zeros(2)
    for value in (1.0, 2.0, 3.0):
        move_averages([(average, torch.full((2,), value, requires_grad=True))], 0.95)
    assert average.tolist() == pytest.approx([0.290125] * 2)  # 0.05, 0.1475, 0.290125 by hand


def test_averages_are_computed_in_their_own_dtype():
    average, weight = torch.ones(1), torch.tensor([2.0], dtype=torch.bfloat16)
    move_averages([(average, weight)], 0.999)
    assert average.item() == pytest.approx(1.001)
    assert average.dtype is torch.float32
