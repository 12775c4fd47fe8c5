"""The v-prediction example of the authors' page, with a network that is exact for Gaussian data: x0 of N(MEAN, STD^2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvideo_core import RoleHandle, TrainingBatch
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_testing.family_pipelines import PipelineChecks, SchedulerStep
from fastvideo_testing.family_samplers import Training
from tests.v_prediction import VPredictionAdapter, VPredictionPipeline

MEAN, STD = 0.7, 0.4
ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


def means(noisy: Tensor, of_data: Tensor, of_noise: Tensor) -> tuple[Tensor, Tensor]:
    """E[x0] and E[noise] given of_data * x0 + of_noise * noise."""
    gain = of_data * STD**2 / (of_data**2 * STD**2 + of_noise**2)
    x0 = MEAN + gain * (noisy - of_data * MEAN)
    return x0, (noisy - of_data * x0) / of_noise


class ExactV(nn.Module):
    """E[v | z] at a time between those of the schedule: levels run linearly in sigma from one to the next."""

    def forward(self, z: Tensor, time: Tensor, conditioning: Any) -> Tensor:
        table = (1 - ALPHAS_CUMPROD).sqrt() / (ALPHAS_CUMPROD.sqrt() + (1 - ALPHAS_CUMPROD).sqrt())
        before = time.floor().long().clamp(0, len(table) - 2)
        sigma = torch.lerp(table[before], table[before + 1], time - before)
        length = ((1 - sigma) ** 2 + sigma**2).sqrt()
        alpha, s = (level.reshape(-1, 1, 1) for level in ((1 - sigma) / length, sigma / length))
        x0, noise = means(z.double(), alpha, s)
        return (alpha * noise - s * x0).float()


class Adapter(VPredictionAdapter):
    """Of a family whose every batch is BATCH."""

    def prepare_batch(self, raw_batch: Any, **options: Any) -> TrainingBatch:
        return BATCH


@pytest.fixture
def student() -> RoleHandle:
    return RoleHandle("student", {"transformer": ExactV()})


BATCH = TrainingBatch(torch.zeros(5, 2, 3), {})


def test_the_velocity_of_an_exact_network_is_that_of_rectified_flow(student: RoleHandle) -> None:
    adapter = Adapter(ALPHAS_CUMPROD)
    t = adapter.shift_and_clamp_timestep(torch.tensor([30.0, 250.3, 500.0, 777.7, 1000.0]))
    noise = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    noisy = adapter.add_noise(torch.full_like(noise, MEAN), noise, t)
    sigma = (t.double() / 1000).reshape(-1, 1, 1)
    x0, mean_noise = means(noisy.double(), 1 - sigma, sigma)
    prediction = adapter.predict_noise(student, noisy, t, BATCH, conditional=True)
    torch.testing.assert_close(prediction.double(), mean_noise - x0, rtol=1e-4, atol=1e-4)
    estimate = adapter.predict_x0(student, noisy, t, BATCH, conditional=True)
    torch.testing.assert_close(estimate.double(), x0, rtol=1e-4, atol=1e-4)


def test_levels_at_the_schedule_s_own_times_are_the_network_s_own_inputs() -> None:
    adapter = Adapter(ALPHAS_CUMPROD)
    alpha, s = ALPHAS_CUMPROD.sqrt(), (1 - ALPHAS_CUMPROD).sqrt()
    own = torch.tensor([0, 1, 499, 998, 999])
    torch.testing.assert_close(adapter.network_time(s[own] / (alpha + s)[own]), own.double(), rtol=0, atol=1e-6)


def test_sampling_an_exact_network_from_its_noisiest_level_gives_the_data(student: RoleHandle) -> None:
    adapter = Adapter(ALPHAS_CUMPROD)
    even = adapter.shift_and_clamp_timestep(torch.linspace(1000, 5, 200, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(5, 40, 50, generator=generator) for _ in range(2))
    first = adapter.add_noise(MEAN + STD * clean, noise, even[:1])

    def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
        return adapter.predict_x0(student, noisy, t, BATCH, conditional=True)

    made = rollout(predict_x0, first, FewStepSchedule(tuple(dict.fromkeys(even.tolist()))), kind="ode")
    assert made.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert made.std().item() == pytest.approx(STD, abs=0.02)


class Checks(VPredictionPipeline, PipelineChecks):
    """What a suite of such a family overrides."""


def test_the_kit_holds_it_to_its_own_pipeline_once_the_suite_tells_the_axis(student: RoleHandle) -> None:
    adapter: Any = Adapter(ALPHAS_CUMPROD)
    training = Training(SimpleNamespace(bundle={"student": student}, adapter=adapter), BATCH, None)  # type: ignore[arg-type]
    z, level = training.noise(), float(adapter.shift_and_clamp_timestep(torch.tensor(600.0))) / 1000
    v = student.modules["transformer"](z, adapter.network_time(torch.full((5,), level, dtype=torch.float64)), {})
    step = SchedulerStep([v.transpose(1, 2)], [z.transpose(1, 2)], level)
    Checks()._assert_same(training, step, 1.0)
    with pytest.raises(AssertionError, match="pipeline_axis must say"):
        PipelineChecks()._assert_same(training, SchedulerStep([v], [z], level), 1.0)


def test_the_kit_finds_x_t_in_the_call_of_a_network_that_gets_it_in_another_length(student: RoleHandle) -> None:
    given = SimpleNamespace(bundle={"student": student}, adapter=Adapter(ALPHAS_CUMPROD))
    training = Training(given, BATCH, None)  # type: ignore[arg-type]
    where: Any = SimpleNamespace(read=lambda values: values[0])
    x, call = training.noise(1), training.call(training.noise(1), 600.0)
    names = [name for name, value in call.inputs.items() if value.shape == x.shape]
    assert not torch.allclose(call.inputs[names[0]], x, rtol=0.1)
    torch.testing.assert_close(training.noisy_in(call, 600.0, names, where), x)
