"""Flow-matching conversions against closed forms (oracle 1: Gaussian data)."""

import pytest
import torch

from fastvideo_core.diffusion import flow

MEAN, STD = 1.7, 0.6


def posterior_mean(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[x0 | x_t] of data N(MEAN, STD^2)."""
    gain = (1 - t) * STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    return MEAN + gain * (noisy - (1 - t) * MEAN)


def gaussian_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = MEAN + STD * torch.randn(64, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    return clean, noise, torch.rand(64, generator=generator, dtype=torch.float64) * 0.98 + 0.01


def test_x0_velocity_and_noise_convert_into_each_other_to_1e_10():
    clean, noise, sigma = gaussian_pair()
    noisy = flow.add_noise(clean, noise, sigma)
    v = flow.velocity(clean, noise)
    torch.testing.assert_close(flow.x0_from_velocity(noisy, v, sigma), clean, atol=1e-10, rtol=0)
    torch.testing.assert_close(flow.add_noise(clean, clean + v, sigma), noisy, atol=1e-10, rtol=0)


def test_the_least_squares_velocity_of_gaussian_data_is_the_closed_form():
    generator = torch.Generator().manual_seed(1)
    size, t = 400_000, 0.5
    clean = MEAN + STD * torch.randn(size, generator=generator, dtype=torch.float64)
    noise = torch.randn(size, generator=generator, dtype=torch.float64)
    noisy = flow.add_noise(clean, noise, torch.full((size,), t))
    design = torch.stack([noisy, torch.ones_like(noisy)], dim=1)
    slope, intercept = torch.linalg.lstsq(design, flow.velocity(clean, noise)[:, None]).solution[:, 0].tolist()
    assert slope == pytest.approx(0.941176, abs=5e-3)
    assert intercept == pytest.approx(-2.5, abs=5e-3)


def test_the_exact_velocity_field_gives_the_posterior_mean():
    clean, noise, sigma = gaussian_pair()
    noisy = flow.add_noise(clean, noise, sigma)
    t = sigma[:, None]
    x0 = posterior_mean(noisy, t)
    v = (noisy - x0) / t
    torch.testing.assert_close(flow.x0_from_velocity(noisy, v, sigma), x0, atol=1e-10, rtol=0)


def test_moving_along_the_line_is_an_euler_step_of_the_velocity_and_ends_at_x0():
    clean, noise, sigma = gaussian_pair()
    noisy, later = flow.add_noise(clean, noise, sigma), sigma * torch.linspace(0, 1, 64, dtype=torch.float64)
    moved = flow.move_along(noisy, clean, 1000 * sigma, 1000 * later)  # in any unit
    torch.testing.assert_close(moved, flow.add_noise(clean, noise, later), atol=1e-10, rtol=0)
    v = flow.velocity(clean, noise)
    torch.testing.assert_close(moved, noisy + (later - sigma)[:, None] * v, atol=1e-10, rtol=0)
    assert torch.equal(flow.move_along(noisy, clean, 0.5, 0.0), clean)


def test_conversions_of_bfloat16_inputs_are_done_in_float32():
    noisy = torch.tensor([[1.0]], dtype=torch.bfloat16)
    v = torch.tensor([[1.0]], dtype=torch.bfloat16)
    x0 = flow.x0_from_velocity(noisy, v, torch.tensor([0.001]))
    assert x0.dtype is torch.float32
    assert x0.item() == pytest.approx(0.999, abs=1e-7)  # bfloat16 would round to 1.0


def test_guidance_moves_away_from_the_unconditional_prediction():
    assert flow.guided(torch.tensor(2.0), torch.tensor(1.0), 3.0).item() == 4.0


def test_shift_keeps_the_ends_and_raises_the_middle():
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = flow.shift_sigma(u, 3.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert shifted[5].item() == pytest.approx(0.75)


def test_sigma_may_be_given_per_element_of_the_latents():
    clean, noise = torch.zeros(2, 3), torch.ones(2, 3)
    sigma = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    torch.testing.assert_close(flow.add_noise(clean, noise, sigma), sigma)
