"""Noising from a level above 0 and its target, against closed forms (Gaussian data)."""

import pytest
import torch

from fastvideo_core.diffusion import flow
from fastvideo_dmd2.levels import add_noise_from_level, pair_from_level

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


def from_level(level: float, sigma: float) -> dict[str, torch.Tensor]:
    """What x_t, both targets and the clean latents and noise of it are made of: coefficients of x_s and of e."""
    x_s, e = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    t = torch.tensor([sigma], dtype=torch.float64)
    clean, noise, weight = pair_from_level(x_s, e, level, t)
    x_t = add_noise_from_level(x_s, e, level, t)
    return {"x_t": x_t[0], "target": flow.velocity(clean, noise)[0], "naive": (e - x_s)[0], "weight": weight}


def regressed(coefficients: torch.Tensor, x_t: torch.Tensor, level: float) -> tuple[float, float]:
    """Slope and intercept of E[c . (x_s, e) | x_t], x_s being the data noised to `level`; exact."""
    means = torch.tensor([(1 - level) * MEAN, 0.0], dtype=torch.float64)
    variances = torch.tensor([(1 - level) ** 2 * STD**2 + level**2, 1.0], dtype=torch.float64)
    slope = (coefficients * x_t * variances).sum() / (x_t**2 * variances).sum()
    return slope.item(), ((coefficients - slope * x_t) * means).sum().item()


@pytest.mark.parametrize(
    ("level", "sigma", "slope", "intercept", "naive"),
    [
        (0.5, 0.8, 1.11247, -2.07824, (0.97585, -1.18179)),
        (0.875, 0.95, 1.03166, -1.78769, (0.63613, -0.26657)),
        (0.0, 0.6, 1.09195, -2.44253, (1.09195, -2.44253)),
    ],
)
def test_the_target_from_a_level_regresses_to_the_velocity_and_the_naive_one_does_not(
    level, sigma, slope, intercept, naive
):
    found = from_level(level, sigma)
    assert regressed(found["target"], found["x_t"], level) == pytest.approx((slope, intercept), abs=5e-6)
    assert regressed(found["naive"], found["x_t"], level) == pytest.approx(naive, abs=5e-6)
    t = torch.tensor(sigma, dtype=torch.float64)
    at_0, at_1 = ((x - posterior_mean(x, t)).item() / sigma for x in torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (slope, intercept) == pytest.approx((at_1 - at_0, at_0), abs=5e-6)


def test_the_mean_of_the_target_is_the_velocity_at_each_point():
    level, sigma = 0.625, 0.8333333333333334
    found = from_level(level, sigma)
    for kind, means in (
        ("target", (-2.011041009, -0.913249211, 0.184542587)),
        ("naive", (-0.874627110, -0.037707897, 0.799211316)),
    ):
        slope, intercept = regressed(found[kind], found["x_t"], level)
        assert [slope * x + intercept for x in (0, 1, 2)] == pytest.approx(means, abs=1e-8), kind


def test_data_at_a_level_that_is_noised_further_is_data_at_the_higher_level():
    for level, sigma in ((0.5, 0.8), (0.875, 0.95), (0.25, 1.0)):
        a, b = from_level(level, sigma)["x_t"].tolist()
        assert a * (1 - level) == pytest.approx(1 - sigma)
        assert a**2 * level**2 + b**2 == pytest.approx(sigma**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_from_level_0_it_is_ordinary_flow_matching_to_the_bit(dtype):
    clean, noise, sigma = (values.to(dtype) for values in gaussian_pair())
    sigma = sigma.float() if dtype is torch.bfloat16 else sigma
    assert torch.equal(add_noise_from_level(clean, noise, 0.0, sigma), flow.add_noise(clean, noise, sigma))
    x0, e, weight = pair_from_level(clean, noise, 0.0, sigma)
    assert torch.equal(flow.velocity(x0, e), flow.velocity(clean, noise))
    assert torch.equal(weight, torch.ones_like(weight))


def test_the_weight_holds_the_target_s_noise_at_1_and_is_finite_at_the_level_itself():
    for level, sigma in ((0.5, 0.50001), (0.5, 0.8), (0.875, 0.95), (0.875, 1.0)):
        found = from_level(level, sigma)
        assert found["weight"].item() * found["target"][1].item() ** 2 == pytest.approx(1.0)
    at_level = from_level(0.75, 0.75)
    assert at_level["x_t"].tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert all(value.isfinite().all() for value in at_level.values())
