"""What regressions on exact paths of Gaussian data come to, as affine maps x0 = a x + b of the student.

For data N(m, s^2) the probability-flow ODE leads from x at noise level t to x0 = m + a (x - (1 - t) m) with
a = s / sqrt((1 - t)^2 s^2 + t^2); noise that is drawn anew gives the posterior mean instead, with
a = (1 - t) s^2 / ((1 - t)^2 s^2 + t^2). The numbers are of m = 1.7, s = 0.6.
"""

from types import SimpleNamespace

import pytest
import torch

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_kd.losses import line_ends, regression_loss
from fastvideo_kd.stored_steps import solver_timesteps
from fastvideo_kd.trajectories import sample_states
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_testing.toy import ExactNetwork, Mixture, ToyAdapter

GAUSSIAN = Mixture(means=((1.7,),), std=0.6)
LEVELS = {
    1000.0: (0.6, 1.7, 0.36),
    937.0: (0.639821, 1.631475, 0.359415),
    833.0: (0.715133, 1.496974, 0.354865),
    624.0: (0.904255, 1.122, 0.318384),
}
"""By timestep: slope and offset of the least-squares student on one path, and the floor of its loss where noise is redrawn."""
REDRAWN = {1000.0: 0.0, 937.0: 0.02579, 833.0: 0.085406, 624.0: 0.307447}
"""The slopes of that mistake."""


class Affine(torch.nn.Module):
    """A velocity whose x0 = x - s v is a x + b: the student of one noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = torch.nn.Parameter(torch.zeros(())), torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, sigma, condition):
        return (x - (self.slope * x + self.offset)) / sigma[:, None]


def method_of(folder, **config):
    """kd on exact paths, with one step, and what it takes to put a student of one noise level in."""
    run = {
        "recipe": {"family": "toy", "method": "kd"},
        "roles": {"student": {"path": "org/base", "trainable": True}},
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 10},
        "method_config": {"warp_denoising_step": False, **config},
        "pipeline_config": {"data": {"means": [[1.7]], "std": 0.6}},
    }
    with toy_family():
        method = build_run(folder, run).method
    method.student.modules["transformer"] = Affine()
    return method


def fitted(loss_of, student):
    """Slope and offset of the least-squares student, by Newton's one step on a quadratic loss, and the loss there."""
    parameters = [student.slope, student.offset]
    gradient = torch.autograd.grad(loss_of(), parameters, create_graph=True)
    rows = [torch.stack(torch.autograd.grad(entry, parameters, retain_graph=True)) for entry in gradient]
    step = torch.linalg.solve(torch.stack(rows).double(), torch.stack(gradient).detach().double())
    with torch.no_grad():
        for parameter, move in zip(parameters, step, strict=True):
            parameter -= move.float()
    return student.slope.item(), student.offset.item(), loss_of().item()


def paths(t, size=40_000, seed=0):
    """Ends, and the states at t of their paths and of a straight line to noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    ends = GAUSSIAN.sample(size, generator)
    sigma = torch.tensor([t / 1000])
    noise = torch.randn(size, 1, generator=generator)
    return ends, GAUSSIAN.path(ends, sigma)[:, 0], (1 - sigma) * ends + sigma * noise


@pytest.mark.parametrize("t", LEVELS)
def test_the_student_of_one_path_is_the_exact_map_with_no_loss_left(t, tmp_path, monkeypatch):
    method = method_of(tmp_path, denoising_steps=[1000] if t == 1000 else [1000, t])
    times = torch.tensor([1000.0, 0.0] if t == 1000 else [1000.0, t, 0.0])
    monkeypatch.setattr(ToyAdapter, "stored_trajectory", lambda self, raw: stored(self, raw, times))
    ends, _, _ = paths(t)
    batch = method.prepare_batch({"vae_latent": ends}, latents_source="trajectory")
    at = torch.full((len(ends),), t)
    slope, offset, loss = fitted(lambda: method.x0_loss(batch, at), method.student.modules["transformer"])
    assert (slope, offset) == pytest.approx(LEVELS[t][:2], abs=2e-5)
    assert loss == pytest.approx(0, abs=1e-9)


def stored(adapter, raw, times):
    from fastvideo_core.contracts.batch import Trajectory

    states = adapter.data.path(raw["vae_latent"], times / 1000)
    return Trajectory(states, times.expand(len(states), -1))


@pytest.mark.parametrize("t", LEVELS)
def test_noise_that_is_drawn_anew_would_give_the_blurry_mean(t):
    """The mistake that the states of a trajectory avoid: the numbers that it would come to."""
    ends, _, noisy = paths(t, size=400_000)
    student = Affine()
    sigma = torch.full((len(ends),), t / 1000)
    x0 = lambda: noisy - sigma[:, None] * student(noisy, sigma, None)  # noqa: E731
    slope, _, loss = fitted(lambda: regression_loss(x0(), ends), student)
    assert slope == pytest.approx(REDRAWN[t], abs=4e-3)
    assert loss == pytest.approx(LEVELS[t][2], rel=0.01)


def teacher(network, shift=5.0):
    adapter = ToyAdapter(shift)
    return SimpleNamespace(adapter=adapter, handle=RoleHandle("teacher", {"transformer": network}))


def affine_end(network, *, steps, guidance_scale=1.0, shift=5.0):
    """Slope and offset of the sampler's end as a function of its noise."""
    one = teacher(network, shift)
    noise = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    batch = one.adapter.prepare_batch({"vae_latent": torch.zeros(2, 1)}, latents_source="zeros")
    times = solver_timesteps(one.adapter.shift_and_clamp_timestep, steps)
    *_, end = sample_states(one, batch, noise, times, range(steps), guidance_scale=guidance_scale)
    return (end[1] - end[0]).item(), end[0].item()


def test_a_teacher_of_48_euler_steps_at_shift_5_ends_short_of_the_data_s_spread():
    assert affine_end(ExactNetwork(GAUSSIAN), steps=48) == pytest.approx((0.554001, 1.7), abs=5e-6)


@pytest.mark.parametrize(("shift", "slope"), [(1.0, 0.582869), (3.0, 0.569022), (8.0, 0.531731)])
def test_the_teacher_s_steps_are_moved_through_the_shift(shift, slope):
    assert affine_end(ExactNetwork(GAUSSIAN), steps=48, shift=shift) == pytest.approx((slope, 1.7), abs=5e-6)


class TwoGaussians(torch.nn.Module):
    """N(2, .36) with the condition, N(1, .36) without."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.free = (ExactNetwork(Mixture(means=((mean,),), std=0.6)) for mean in (2.0, 1.0))

    def forward(self, x, sigma, condition):
        return torch.where(condition > 0, self.given(x, sigma, condition), self.free(x, sigma, condition))


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 1.0), (1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
def test_guidance_moves_the_ends_of_trajectories_as_u_plus_w_c_minus_u(scale, offset):
    """c + w (c - u), one too strong, would end at 5 with w = 3; a conditional teacher alone at 2."""
    assert affine_end(TwoGaussians(), steps=48, guidance_scale=scale)[1] == pytest.approx(offset, abs=5e-6)


def test_two_euler_steps_merge_into_one_of_their_chord():
    """Progressive distillation from (2, 0.8) by two steps of 0.2: x' = 1.970660147, x'' = 2.028791839, v = -0.071979597."""
    one = teacher(ExactNetwork(GAUSSIAN), shift=1.0)
    batch = one.adapter.prepare_batch({"vae_latent": torch.zeros(1, 1)}, latents_source="zeros")
    noise, times = torch.tensor([[2.0]], dtype=torch.float64), [800.0, 600.0, 400.0]
    x, halfway, later = sample_states(one, batch, noise, times, [0, 1], guidance_scale=1.0)
    assert (x.item(), halfway.item(), later.item()) == pytest.approx((2.0, 1.970660147, 2.028791839), abs=1e-6)
    clean, end = line_ends(x, later, torch.tensor([0.8]), torch.tensor([0.4]))
    assert one.adapter.prediction_target(clean, end, torch.tensor([800.0])).item() == pytest.approx(
        -0.071979597, abs=2e-6
    )
