"""Few-step schedules, transitions and rollouts."""

import pytest
import torch

from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.rollout import FewStepSchedule, roll_to, rollout, transition


class CountingOracle:
    """The exact x0 of data that is the constant `value`; counts its calls and remembers the timesteps."""

    def __init__(self, value: float = 2.0) -> None:
        self.value = value
        self.timesteps: list[float] = []

    def __call__(self, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.timesteps.append(t[0].item())
        return torch.full_like(noisy, self.value)


def test_a_closing_zero_costs_no_call_and_999_is_pure_noise():
    schedule = FewStepSchedule.from_denoising_steps([999, 750, 500, 250, 0])
    assert schedule.timesteps == (1000.0, 750.0, 500.0, 250.0)
    assert [schedule.sigma(i) for i in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_warping_moves_the_levels_through_the_shift():
    schedule = FewStepSchedule.from_denoising_steps([1000, 500], warp=lambda t: shift_sigma(t / 1000, 3.0) * 1000)
    assert schedule.timesteps == (1000.0, 750.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "at least one step above 0"),
        ([0], "at least one step above 0"),
        ([1000, 1200], "every step must be in 0..1000"),
        ([1000, 500, 500], "steps must fall strictly"),
        ([500, 250], r"the first step must be 1000 or 999 \(pure noise\)"),
        ([1000, 999], "only the first step may be pure noise"),
    ],
)
def test_bad_schedules_are_refused_with_the_reason(steps, message):
    with pytest.raises(ValueError, match=message):
        FewStepSchedule.from_denoising_steps(steps)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_a_rollout_calls_the_network_once_per_step_and_ends_at_its_x0(calls, kind):
    steps = [1000 * (calls - i) / calls for i in range(calls)] + [0]
    oracle = CountingOracle()
    x0 = rollout(
        oracle,
        torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
        FewStepSchedule.from_denoising_steps(steps),
        kind=kind,
        generator=torch.Generator().manual_seed(1),
    )
    assert oracle.timesteps == pytest.approx(steps[:-1])
    assert torch.equal(x0, torch.full((3, 2), 2.0))


def test_rolling_to_an_exit_runs_only_the_steps_before_it():
    oracle = CountingOracle()
    schedule = FewStepSchedule.from_denoising_steps([1000, 750, 500, 250])
    roll_to(oracle, torch.zeros(1, 1), schedule, exit_index=2, kind="ode")
    assert oracle.timesteps == [1000.0, 750.0]


def test_the_ode_keeps_the_noise_and_the_sde_redraws_it():
    clean, noise = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    noisy = 0.25 * clean + 0.75 * noise
    kept = transition(noisy, clean, 0.75, 0.5, kind="ode")
    torch.testing.assert_close(kept, 0.5 * clean + 0.5 * noise)
    fresh = torch.randn(1, 1, generator=torch.Generator().manual_seed(5))
    redrawn = transition(noisy, clean, 0.75, 0.5, kind="sde", generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(redrawn, 0.5 * clean + 0.5 * fresh)


def test_the_last_transition_is_the_clean_estimate_itself():
    x0 = torch.tensor([[3.0]])
    assert transition(torch.zeros(1, 1), x0, 0.25, 0.0, kind="sde") is x0
