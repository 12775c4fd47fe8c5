"""The states of stored trajectories, by their timesteps."""

import pytest
import torch

from fastvideo_core.contracts.batch import Trajectory
from fastvideo_core.errors import DataError
from fastvideo_kd.losses import line_ends, regression_loss
from fastvideo_kd.states import clean_end, state_at


def trajectory(*times, samples=2):
    """States that say where they are: 10 for each sample, 1 for each step."""
    states = torch.arange(len(times)).float() + 10 * torch.arange(samples)[:, None].float()
    return Trajectory(states[..., None], torch.tensor(times).expand(samples, -1))


def test_every_sample_has_the_state_of_its_own_timestep():
    found = state_at(trajectory(1000.0, 937.5, 833.3, 625.0, 0.0, samples=3), torch.tensor([625.0, 1000.0, 937.5]))
    assert found.flatten().tolist() == [3.0, 10.0, 21.0]


def test_the_end_is_the_last_state_whatever_its_timestep_is():
    """FastVideo stores the time of the teacher's last step with it."""
    stored = trajectory(1000.0, 500.0, 96.15)
    assert clean_end(stored).flatten().tolist() == [2.0, 12.0]
    assert state_at(stored, torch.zeros(2)).flatten().tolist() == [2.0, 12.0]
    with pytest.raises(DataError, match=r"no state at timestep 96\.15"):
        state_at(stored, torch.tensor([96.15, 1000.0]))


def test_whole_numbers_of_timesteps_are_near_enough():
    assert state_at(trajectory(999, 937, 833, 625, 0), torch.tensor([1000.0, 937.5])).flatten().tolist() == [0.0, 11.0]


def test_a_state_that_is_not_there_is_an_error_that_names_those_that_are():
    with pytest.raises(DataError) as raised:
        state_at(trajectory(1000.0, 937.5, 625.0, 0.0), torch.tensor([937.5, 750.0]))
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
