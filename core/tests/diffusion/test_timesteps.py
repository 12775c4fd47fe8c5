"""Timestep distributions."""

import math

import pytest
import torch

from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.timesteps import (
    SAMPLINGS,
    UNSHIFTED_SAMPLINGS,
    sample_shifted_logit_normal,
    sample_timesteps,
    sample_u,
)


def draws(sampling: str, **settings: float) -> torch.Tensor:
    return sample_u(sampling, 200_000, torch.Generator().manual_seed(0), **settings).double()


@pytest.mark.parametrize("sampling", UNSHIFTED_SAMPLINGS)
def test_levels_are_in_the_unit_interval_and_reproducible(sampling):
    u = draws(sampling)
    assert u.min() >= 0
    assert u.max() <= 1
    assert torch.equal(u, draws(sampling))


def test_uniform_has_mean_half_and_variance_a_twelfth():
    u = draws("uniform")
    assert u.mean().item() == pytest.approx(0.5, abs=3e-3)
    assert u.var().item() == pytest.approx(1 / 12, abs=1e-3)


def test_logit_normal_is_normal_in_logits():
    z = torch.logit(draws("logit_normal", logit_mean=0.5, logit_std=2.0))
    assert z.mean().item() == pytest.approx(0.5, abs=0.02)
    assert z.std().item() == pytest.approx(2.0, abs=0.02)


def test_mode_sampling_with_scale_zero_is_uniform_and_positive_scale_favours_the_middle():
    flat, peaked = draws("mode", mode_scale=0.0), draws("mode", mode_scale=1.29)
    assert flat.var().item() == pytest.approx(1 / 12, abs=1e-3)
    assert peaked.var() < flat.var() * 0.6
    assert peaked.mean().item() == pytest.approx(0.5, abs=3e-3)


def test_an_unknown_name_says_what_is_allowed():
    with pytest.raises(ValueError, match="unknown timestep sampling 'normal'; allowed: uniform, logit_normal, mode"):
        sample_u("normal", 1, torch.Generator())


def shifted_draws(mu: float, **settings: float) -> torch.Tensor:
    def shift(u: torch.Tensor) -> torch.Tensor:
        return shift_sigma(u, math.exp(mu))

    generator = torch.Generator().manual_seed(0)
    return sample_shifted_logit_normal(200_000, generator, shift=shift, **settings).double()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("mu", "std"), [(0.95, 1.0), (2.05, 1.0), (1.3, 0.7)])
def test_the_shifted_logit_normal_has_the_quantiles_of_its_closed_form(mu, std):
    t = shifted_draws(mu, std=std, uniform_fraction=0.0)
    low, high = sigmoid(mu - 2.5758 * std), sigmoid(mu + 3.0902 * std)
    for z, probability in ((-1.2816, 0.1), (0.0, 0.5), (1.2816, 0.9)):
        expected = (sigmoid(mu + z * std) - low) / (high - low)
        assert t.quantile(probability).item() == pytest.approx(expected, abs=4e-3)
    assert (t == 1).double().mean().item() == pytest.approx(1e-3, abs=3e-4)
    assert t.min() >= 0


def test_a_tenth_of_the_shifted_logit_normal_is_uniform():
    t = shifted_draws(6.0, std=0.1)  # without the uniform part hardly a level below 0.5
    stretched_alone = shifted_draws(6.0, std=0.1, uniform_fraction=0.0)
    below = (stretched_alone < 0.05).double().mean().item()
    expected = 0.1 * 0.049 / 0.999 + 0.9 * below
    assert (t < 0.05).double().mean().item() == pytest.approx(expected, abs=1e-3)
    only_uniform = shifted_draws(6.0, uniform_fraction=1.0)
    assert only_uniform.min() >= 1e-3
    assert only_uniform.mean().item() == pytest.approx(0.5005, abs=3e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_timesteps_are_shifted_once_and_on_the_axis(sampling):
    def shift(t: torch.Tensor) -> torch.Tensor:
        return shift_sigma(t / 1000, 5.0) * 1000

    t = sample_timesteps(sampling, 50_000, torch.Generator().manual_seed(0), shift=shift, num_train_timesteps=1000)
    assert t.min() >= 0
    assert t.max() <= 1000
    if sampling == "shifted_logit_normal":
        levels = sample_shifted_logit_normal(
            50_000, torch.Generator().manual_seed(0), shift=lambda u: shift(u * 1000) / 1000
        )
        torch.testing.assert_close(t, levels * 1000)
    else:
        assert torch.equal(t, shift(sample_u(sampling, 50_000, torch.Generator().manual_seed(0)) * 1000))
