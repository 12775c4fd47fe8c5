"""Timestep distributions and loss weightings."""

import math

import pytest
import torch

from fastvideo_core.diffusion.timesteps import SAMPLINGS, WEIGHTINGS, loss_weight, sample_u


def draws(sampling: str, **settings: float) -> torch.Tensor:
    return sample_u(sampling, 200_000, torch.Generator().manual_seed(0), **settings).double()


@pytest.mark.parametrize("sampling", SAMPLINGS)
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


def test_weightings_match_their_formulas():
    sigma = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(loss_weight("none", sigma), torch.ones_like(sigma))
    torch.testing.assert_close(loss_weight("sigma_sqrt", sigma), 1 / sigma**2)
    torch.testing.assert_close(loss_weight("cosmap", sigma)[1], torch.tensor(4 / math.pi, dtype=torch.float64))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_stay_finite_at_zero_noise(weighting):
    assert torch.isfinite(loss_weight(weighting, torch.zeros(1))).all()


def test_unknown_names_say_what_is_allowed():
    with pytest.raises(ValueError, match="unknown timestep sampling 'normal'; allowed: uniform, logit_normal, mode"):
        sample_u("normal", 1, torch.Generator())
    with pytest.raises(ValueError, match="unknown loss weighting 'x'; allowed: none, sigma_sqrt, cosmap"):
        loss_weight("x", torch.zeros(1))
