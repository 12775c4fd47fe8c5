"""What docs/consistency.md says is computed, is computed here: by the method's own steps, on Gaussian data N(1.7, 0.6^2)."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import Tensor

from fastvideo_consistency.solver import solver_step
from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind, transition
from tests.test_docs import ROOT

MEAN, STD = 1.7, 0.6
PAGE = (ROOT / "docs/consistency.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (euler|heun) \| (\d+) \| (\d+) \| (\d) \| (-?[\d.]+) %", re.MULTILINE)
ROWS = [
    (solver, int(steps), int(shift), int(calls), float(lost)) for solver, steps, shift, calls, lost in ROW.findall(PAGE)
]


def exact_x0(x: Tensor, t: Tensor) -> Tensor:
    """E[x0 | x_t]."""
    s = t[:, None] / 1000
    gain = (1 - s) * STD**2 / ((1 - s) ** 2 * STD**2 + s**2)
    return MEAN + gain * (x - (1 - s) * MEAN)


def spread_lost(solver: Literal["euler", "heun"], steps: int, shift: float, *, last: float = 0.0) -> float:
    """In percent of STD; by a path that ends at timestep `last`."""
    u = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    levels = 1000 * shift_sigma(u, shift)
    levels[-1] = last
    x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    for t, next_t in pairwise(levels):
        x = solver_step(exact_x0, x, t.expand(2), next_t.expand(2), kind=solver)
    return 100 * (1 - float(x[0] - x[1]) / STD)


@pytest.mark.parametrize(("solver", "steps", "shift", "calls", "lost"), ROWS, ids=str)
def test_the_table_of_solvers_is_what_their_steps_make(solver, steps, shift, calls, lost):
    digits = 2 if abs(lost) < 0.1 else 1
    assert round(spread_lost(solver, steps, shift), digits) == pytest.approx(lost)
    assert calls == (4 if solver == "heun" else 2)


def test_the_page_names_what_is_lost_at_48_steps_and_shift_5():
    assert len(ROWS) == 6
    euler, heun = spread_lost("euler", 48, 5), spread_lost("heun", 48, 5, last=1e-6)
    assert f"Euler with N = 48 and shift 5 loses {euler:.1f} % of the spread at every prompt, Heun {heun:.1f} %" in PAGE
    assert f"over 4 of 48, {spread_lost('euler', 12, 5):.0f} % are lost" in PAGE


def spread_of_samples(kind: SamplerKind) -> float:
    """Relative to STD, of the exact consistency function in four calls at shift 5: from the standard deviation of x."""
    schedule = FewStepSchedule.from_denoising_steps(
        [1000, 750, 500, 250], warp=lambda t: 1000 * shift_sigma(t / 1000, 5.0)
    )
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator, x = torch.Generator().manual_seed(1), noise
    for index in range(len(schedule)):
        s, r = schedule.sigma(index), schedule.sigma(index + 1)
        gain = STD / ((1 - s) ** 2 * STD**2 + s**2) ** 0.5
        x0 = MEAN + gain * (x - (1 - s) * MEAN)
        x = transition(x, x0, s, r, kind=kind, generator=generator)
    return float(x.std()) / STD


def test_samples_by_sde_are_exact_and_by_ode_as_wide_as_the_page_says():
    assert spread_of_samples("sde") == pytest.approx(1.0, abs=0.01)
    assert f"four calls at shift 5 make the spread {100 * (spread_of_samples('ode') - 1):.0f} % too large" in PAGE
