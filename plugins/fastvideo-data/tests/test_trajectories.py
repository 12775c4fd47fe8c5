"""Trajectories in raw batches: their shapes, their times, and the clips that they stand for."""

import math
from typing import Any

import pytest
import torch

from fastvideo_core.errors import DataError
from fastvideo_data.trajectories import all_states, clean_ends, trajectory_tensors, trajectory_timesteps

TIMES = [1000.0, 500.0, 0.0]


def raw(*, samples: int = 2, dims: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    states = torch.arange(samples * 3 * 2.0).reshape(samples, *dims, 3, 2)
    times = torch.tensor(TIMES).expand(samples, 3).reshape(samples, *dims, 3)
    info = [{"id": f"s{number}", "fps": 24.0} for number in range(samples)]
    return {"trajectory_latents": states, "trajectory_timesteps": times, "info": info, **more}


@pytest.mark.parametrize("dims", [(), (1,)], ids=["S", "1-S"])
def test_the_last_state_stands_for_the_clip(dims):
    batch = clean_ends(raw(dims=dims))
    assert batch["vae_latent"].tolist() == [[4.0, 5.0], [10.0, 11.0]]
    assert trajectory_timesteps(raw(dims=dims)).tolist() == [TIMES, TIMES]


@pytest.mark.parametrize("dims", [(), (1,)], ids=["S", "1-S"])
def test_all_states_are_a_batch_of_clips_sample_by_sample(dims):
    flat = all_states(raw(dims=dims))
    assert flat["vae_latent"].flatten().tolist() == list(range(12))
    assert [row["id"] for row in flat["info"]] == ["s0", "s0", "s0", "s1", "s1", "s1"]


def test_states_are_taken_to_be_normalised():
    assert clean_ends(raw())["vae_latent_normalised"] is True
    assert all_states(raw())["vae_latent_normalised"] is True
    assert clean_ends(raw(trajectory_latents_normalised=False))["vae_latent_normalised"] is False


def test_sound_goes_along():
    sound = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    batch = raw(trajectory_audio_latents=sound)
    assert torch.equal(clean_ends(batch)["audio_latent"], sound[:, -1])
    assert torch.equal(all_states(batch)["audio_latent"], sound.flatten(0, 1))


@pytest.mark.parametrize("times", [[1000.0, 500.0, 500.0], [0.0, 500.0, 1000.0], [1000.0, math.nan, 0.0]])
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises(DataError, match="falling from noise to the clean end"):
        trajectory_timesteps(raw(trajectory_timesteps=torch.tensor([TIMES, times])))


def test_states_without_as_many_times_are_refused():
    with pytest.raises(DataError, match=r"trajectory_latents has shape \[3, 2\]"):
        clean_ends(raw(trajectory_timesteps=torch.tensor([[1000.0, 0.0]] * 2)))


def test_no_trajectories_are_told_with_the_command_that_makes_them():
    with pytest.raises(DataError, match="fastvideo-distill trajectories"):
        trajectory_timesteps({"vae_latent": torch.zeros(1, 2), "info": [{"id": "a"}]})


def test_a_run_on_trajectories_reads_nothing_of_clips():
    wanted, optional = trajectory_tensors(["text_embedding"], ["vae_latent", "audio_latent"])
    assert wanted == ["text_embedding", "trajectory_latents", "trajectory_timesteps"]
    assert optional == ["trajectory_audio_latents"]
    assert trajectory_tensors(["text_embedding", "vae_latent"], [])[1] == []
