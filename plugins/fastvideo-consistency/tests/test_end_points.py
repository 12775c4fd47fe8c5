"""Where consistency models end on Gaussian data: at the N-step solver's map from noise to data, not at the ODE's.

Numbers of the right ends and of the mistakes' are of the composition of N affine steps, in float64 (oracles O2b, O2c, O6a, O6c);
the ODE's own map from noise is 0.6 z + 1.7.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fastvideo_consistency.solver import solver_step
from fastvideo_core.diffusion import flow
from fastvideo_core.diffusion.flow import expand_to

from .gaussian import MEAN, STD, Exact, Table, built, end_point, four_samples, minimise, use

TOLERANCE = 3e-6


def test_the_student_ends_at_the_euler_composition_from_every_level(tmp_path: Path) -> None:
    method = built(tmp_path, teacher_guidance_scale=1.0)
    found = end_point(method, (0, 12, 24, 36, 47))
    expected = [(0.554001, 1.7), (0.590502, 1.637259), (0.660293, 1.512917), (0.836320, 1.166846), (1.072662, 0.051814)]
    assert found == [pytest.approx(one, abs=TOLERANCE) for one in expected]
    sigma = [float(method.levels[level]) / 1000 for level in (0, 12, 24, 36, 47)]
    assert sigma == pytest.approx([1.0, 0.9375, 0.833333, 0.625, 0.096154], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "slope"),
    [
        ({"solver": "heun"}, 0.599730),
        ({"shift": 3.0}, 0.569022),
        ({"shift": 1.0}, 0.582869),
        ({"solver_steps": 250}, 0.590902),
        ({"solver_steps": 12}, 0.430642),  # one Euler step over 4 of 48 intervals, as LCM skips
        ({"solver_steps": 2}, 0.070978),
        ({"solver_steps": 1}, 0.0),
    ],
    ids=str,
)
def test_the_end_depends_on_the_solver_alone(tmp_path: Path, options: dict, slope: float) -> None:
    [found] = end_point(built(tmp_path, teacher_guidance_scale=1.0, **options))
    assert found == pytest.approx((slope, MEAN), abs=TOLERANCE)


def spread_lost(folder: Path, **options) -> float:
    """How much less the students of one prompt differ than the data does, in percent."""
    [(slope, _)] = end_point(built(folder, teacher_guidance_scale=1.0, **options))
    return 100 * (1 - slope / STD)


def test_euler_loses_7_7_percent_of_the_spread_and_heun_with_its_last_step_0_04(tmp_path: Path) -> None:
    assert spread_lost(tmp_path) == pytest.approx(7.67, abs=0.01)
    assert spread_lost(tmp_path, solver="heun") == pytest.approx(0.045, abs=0.001)


def composed(levels: torch.Tensor, std: float, kind: str) -> float:
    """The slope of the map from noise to data that steps along these levels make, for data of this spread."""
    exact = Exact(std=std)

    def predict_x0(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - t[:, None] / 1000 * exact(x, t / 1000, torch.ones_like(x))

    x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    for t, next_t in pairwise(levels.double()):
        x = solver_step(predict_x0, x, t.expand(2), next_t.expand(2), kind=kind)
    return float(x[0] - x[1])


def test_heun_s_steps_down_to_almost_0_lose_0_2_percent_and_leave_noise_where_data_does_not_vary(
    tmp_path: Path,
) -> None:
    levels = built(tmp_path).levels
    almost = torch.cat([levels[:-1], torch.tensor([1e-6])])
    assert composed(almost, STD, "heun") == pytest.approx(0.598927, abs=TOLERANCE)  # 0.2 %
    narrow = 0.001
    last = float(levels[-2]) / 1000
    assert composed(almost, narrow, "heun") == pytest.approx(last / 2, rel=0.02)
    assert composed(levels, narrow, "heun") < 2 * narrow
    assert composed(levels, narrow, "euler") < 2 * narrow


def guided(folder: Path, scale: float):
    method = built(folder, teacher_guidance_scale=scale)
    use(method, "teacher", Exact(1.0, 1.0))  # N(2, .36) with its caption, N(1, .36) without
    return method


@pytest.mark.parametrize(("scale", "mean"), [(0.0, 1.0), (1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
def test_a_guided_teacher_s_student_ends_at_its_guided_field(tmp_path: Path, scale: float, mean: float) -> None:
    [found] = end_point(guided(tmp_path, scale))
    assert found == pytest.approx((0.554001, mean), abs=TOLERANCE)


def test_guidance_that_is_one_off_ends_at_another_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "guided", lambda c, u, w: c + w * (c - u))
    [found] = end_point(guided(tmp_path, 3.0))
    assert found == pytest.approx((0.554001, 5.0), abs=TOLERANCE)


# --- common mistakes end elsewhere: each of these replaces the step to the next point of the path -----------------------


def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = Exact()(x, (t / 1000).double(), torch.ones_like(x))
    return out


def step(t: torch.Tensor, next_t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return expand_to((next_t.double() - t.double()) / 1000, x)


MISTAKES = {
    "teacher's step in the wrong direction": (
        lambda x, t, r: x - step(t, r, x) * velocity(x, t),
        (1.7664, -2.1992),
        1e-3,
    ),
    "fresh noise at the next point": (  # its mean over the noise; a target's mean is what the least squares see
        lambda x, t, r: expand_to(1 - r.double() / 1000, x) * (x - expand_to(t.double() / 1000, x) * velocity(x, t)),
        (0.0, 1.7),
        1e-6,
    ),
    "teacher asked at the next level": (
        lambda x, t, r: x + step(t, r, x) * velocity(x, r),
        (0.632349, 1.693952),
        TOLERANCE,
    ),
    "no step at all": (lambda x, t, r: x, (1.0, 0.0), 1e-9),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_known_mistake_ends_elsewhere(tmp_path: Path, mistake: str) -> None:
    wrong, where, tolerance = MISTAKES[mistake]
    method = built(tmp_path)
    method.one_step_ahead = lambda noisy, noise, t, next_t, batch: wrong(noisy, t, next_t)
    [found] = end_point(method)
    assert found == pytest.approx(where, abs=tolerance)
    assert found != pytest.approx((0.554001, 1.7), abs=1e-3)


def test_a_step_in_thousands_with_a_velocity_per_unit_explodes(tmp_path: Path) -> None:
    method = built(tmp_path, solver_steps=4)
    method.one_step_ahead = lambda noisy, noise, t, next_t, batch: (
        noisy + 1000 * step(t, next_t, noisy) * velocity(noisy, t)
    )
    [(slope, _)] = end_point(method)
    assert abs(slope) > 1e6


def test_the_mistake_of_a_forgotten_shift_ends_where_an_unshifted_path_does(tmp_path: Path) -> None:
    method = built(tmp_path, teacher_guidance_scale=1.0)
    method.levels = 1000 * (1 - torch.arange(49) / 48)
    [found] = end_point(method)
    assert found == pytest.approx((0.582869, 1.7), abs=TOLERANCE)


# --- without a teacher --------------------------------------------------------------------------------------------------


def of_one_pair(folder: Path, **options):
    """Consistency training's step from .8 to .6, where the student is exact at .6: (a, b) at .8, and the loss there (O2h)."""
    method = built(folder, teacher=False, **options)
    method.levels = torch.tensor([800.0, 600.0])
    table = Table(method.levels / 1000)
    use(method, "student", table)
    gain = STD / (0.4**2 * STD**2 + 0.6**2) ** 0.5  # the exact consistency function of N(MEAN, STD^2)
    table.maps[1] = torch.tensor([gain, MEAN - gain * 0.4 * MEAN], dtype=torch.float64, requires_grad=True)
    loss = minimise(method, 0, table)
    return table.maps[0].tolist(), loss


def test_consistency_training_has_its_known_slope_and_its_known_floor(tmp_path: Path) -> None:
    (slope, _), loss = of_one_pair(tmp_path)
    assert slope == pytest.approx(0.721896, abs=TOLERANCE)
    assert loss == pytest.approx(0.018970, abs=1e-6)  # the variance of the velocity at x_t, which no teacher took away


def test_consistency_training_goes_to_the_next_point_with_the_same_noise(tmp_path: Path) -> None:
    method = built(tmp_path, teacher=False)
    batch, noise = four_samples()
    t, next_t = torch.full((4,), 800.0), torch.tensor([600.0, 600.0, 0.0, 0.0])
    ahead = method.one_step_ahead(method.adapter.add_noise(batch.latents, noise, t), noise, t, next_t, batch)
    expected = torch.where(next_t[:, None] > 0, 0.4 * batch.latents + 0.6 * noise, batch.latents)
    torch.testing.assert_close(ahead, expected, atol=1e-7, rtol=0)
