"""The states of stored trajectories, by their timesteps."""

import pytest
import torch

from fastvideo_core.errors import DataError
from fastvideo_kd.losses import line_ends, regression_loss
from fastvideo_kd.states import state_numbers, take


def test_every_call_has_the_state_of_its_own_timestep_and_the_end_is_last():
    stored = torch.tensor([[1000.0, 937.5, 833.3, 625.0, 0.0], [1000.0, 900.0, 625.0, 300.0, 0.0]])
    assert state_numbers(stored, (1000.0, 625.0)).tolist() == [[0, 3, 4], [0, 2, 4]]
    states = torch.arange(10.0).reshape(2, 5, 1)
    assert take(states, torch.tensor([3, 2])).flatten().tolist() == [3.0, 7.0]


def test_the_end_is_the_last_state_whatever_its_timestep_is():
    """FastVideo stores the time of the teacher's last step with it."""
    stored = torch.tensor([[1000.0, 500.0, 96.15]])
    assert state_numbers(stored, (1000.0, 500.0)).tolist() == [[0, 1, 2]]
    with pytest.raises(DataError, match=r"no state at timestep 96\.15"):
        state_numbers(stored, (1000.0, 96.15))


def test_whole_numbers_of_timesteps_are_near_enough():
    assert state_numbers(torch.tensor([[999, 937, 833, 625, 0]]), (1000.0, 937.5, 833.3)).tolist() == [[0, 1, 2, 4]]


def test_a_state_that_is_not_there_is_an_error_that_names_those_that_are():
    with pytest.raises(DataError) as raised:
        state_numbers(torch.tensor([[1000.0, 937.5, 625.0, 0.0]]), (1000.0, 750.0))
    said = str(raised.value)
    assert "the trajectories hold no state at timestep 750" in said
    assert "1000, 937.5, 625" in said
    assert "fastvideo-distill trajectories" in said


def test_the_ends_of_a_line_are_on_it():
    clean, noise = torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    states = [(1 - s) * clean + s * noise for s in (0.75, 0.25)]
    found = line_ends(*states, torch.tensor([0.75]), torch.tensor([0.25]))
    assert torch.allclose(torch.stack(found), torch.stack([clean, noise]))


def test_the_loss_counts_samples_alike_and_leaves_masked_elements_out():
    prediction, target = torch.tensor([[2.0, 100.0], [1.0, 3.0]]), torch.zeros(2, 2)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert regression_loss(prediction, target, weight).item() == (4 + (1 + 9) / 2) / 2
    assert regression_loss(torch.ones(1, 1, dtype=torch.bfloat16), torch.full((1, 1), 0.999)).item() > 0
