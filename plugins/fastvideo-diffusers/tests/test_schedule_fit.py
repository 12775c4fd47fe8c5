"""A few-step schedule as a shift and a last level, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.validator import StudentSchedule
from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.schedule_fit import TOLERANCE, exported_schedule, fit_schedule, golden_section


def levels(steps: int, shift: float, terminal: float | None) -> Tensor:
    """Evenly spaced, shifted, and stretched so that 1 - sigma of the last is 1 - terminal."""
    sigmas = shift_sigma(torch.linspace(1, 1 / steps, steps, dtype=torch.float64), shift)
    return sigmas if terminal is None else 1 - (1 - sigmas) * (1 - terminal) / (1 - sigmas[-1])


def test_the_least_of_a_parabola_and_of_a_kink_is_found():
    assert golden_section(lambda x: (x - 0.3) ** 2 + 5, -2, 7) == pytest.approx(0.3, abs=1e-7)
    assert golden_section(lambda x: abs(x - math.pi), 3, 4) == pytest.approx(math.pi, abs=1e-12)
    assert golden_section(lambda x: x, 1, 2) == pytest.approx(1, abs=1e-12)


def test_each_refinement_narrows_the_interval_by_the_golden_ratio_with_one_call():
    calls: list[float] = []

    def kink(x: float) -> float:
        calls.append(x)
        return abs(x - 0.2)

    found = golden_section(kink, 0, 1, refinements=10)
    assert len(calls) == 12
    assert abs(found - 0.2) <= ((math.sqrt(5) - 1) / 2) ** 10 / 2


@pytest.mark.parametrize(("steps", "shift"), [(3, 0.4), (4, 5.0), (8, 12.0)])
def test_the_shift_that_made_a_schedule_is_found_again(steps, shift):
    timesteps = tuple((levels(steps, shift, 0.05) * 1000).tolist())
    schedule = FewStepSchedule(timesteps)
    fitted = fit_schedule(schedule, lambda s, terminal: levels(steps, s, terminal), flow_shift=1.0)
    assert fitted.shift == pytest.approx(shift, rel=1e-6)
    assert fitted.shift_terminal == pytest.approx(0.05)
    assert fitted.deviation < 1e-9


@pytest.mark.parametrize(("timesteps", "terminal"), [((1000.0,), None), ((1000.0, 400.0), 0.4)])
def test_one_and_two_steps_keep_the_run_s_own_shift(timesteps, terminal):
    schedule = FewStepSchedule(timesteps)
    fitted = fit_schedule(schedule, lambda s, last: levels(len(timesteps), s, last), flow_shift=3.0)
    assert (fitted.shift, fitted.shift_terminal) == (3.0, terminal)
    assert fitted.deviation < 1e-12


def test_a_schedule_that_no_shift_makes_is_told_by_its_deviation():
    schedule = FewStepSchedule((1000.0, 990.0, 400.0, 390.0))
    fitted = fit_schedule(schedule, lambda s, terminal: levels(4, s, terminal), flow_shift=1.0)
    assert fitted.deviation > 100 * TOLERANCE
    for factor in (0.9, 1.1):
        other = (
            (levels(4, fitted.shift * factor, fitted.shift_terminal) - torch.tensor([1, 0.99, 0.4, 0.39])).abs().max()
        )
        assert other > fitted.deviation


def test_an_exported_student_s_schedule_is_read_and_a_damaged_one_is_an_error():
    stored = {"sampling_timesteps": [1000.0, 500.0], "sampler_kind": "sde", "flow_shift": 3.0}
    assert exported_schedule(stored, where="f") == StudentSchedule((1000.0, 500.0), "sde")
    assert exported_schedule({"flow_shift": 3.0}, where="f") is None
    for wrong in ({"sampler_kind": "euler"}, {"sampling_timesteps": [500, 1000]}, {"sampling_timesteps": ["x"]}):
        with pytest.raises(ConfigError, match=r"f: the student's schedule cannot be read: "):
            exported_schedule({**stored, **wrong}, where="f")
