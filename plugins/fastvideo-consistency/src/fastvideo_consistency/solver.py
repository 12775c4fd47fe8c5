"""One step along the teacher's path dx/dt = v(x, t), whose slope its estimate of x0 tells: v = (x - x0) / t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import expand_to, move_along

PredictX0 = Callable[[Tensor, Tensor], Tensor]
"""(x [B, ...], t [B]) -> x0 [B, ...]."""


def solver_step(
    predict_x0: PredictX0, x: Tensor, t: Tensor, next_t: Tensor, *, kind: Literal["euler", "heun"]
) -> Tensor:
    """x [B, ...] at the next noise level, in the dtype of x0.

    `euler`: x + (t' - t) v(x, t), one evaluation. `heun`, with x' so reached: x + (t' - t) / 2 (v(x, t) + v(x', t')), two
    (Karras et al. 2022, arXiv:2206.00364, algorithm 1). At t' = 0 x0 does not tell v; there it is the midpoint method's step, of
    the same order and cost, x - t v(x'', t / 2). (With v(x, 0) = -x, which holds as noise has the mean 0, Heun's step to 0 would
    leave half of the last level's noise in every direction in which the data does not vary.)

    Args:
        predict_x0: the teacher; always called with the whole batch, so that every process makes equally many calls.
        t: [B] above 0; in any unit, as only ratios count.
        next_t: [B] in [0, t).
    """
    x0 = predict_x0(x, t)
    if kind == "euler":
        return move_along(x, x0, t, next_t)
    second_t = torch.where(next_t > 0, next_t, t / 2)
    second_x = move_along(x, x0, t, second_t)
    second_x0 = predict_x0(second_x, second_t)
    now, second, later = (expand_to(level.to(x0.dtype), x0) for level in (t, second_t, next_t))
    slope, second_slope = (x - x0) / now, (second_x - second_x0) / second
    return x + (later - now) * torch.where(later > 0, (slope + second_slope) / 2, second_slope)
