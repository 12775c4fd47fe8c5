"""What is known of a set of latent clips in a few numbers, added up over micro-batches and processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from fastvideo_core.distributed import context

GRID = (2, 4, 4)
"""Latent frames, rows and columns of the coarse picture of a clip in which samples are compared: clips of all sizes have it."""

ENOUGH_PROMPTS = 16
"""From which on chance is not asked about."""

_LEAST, _MOST = 1e-3, 1e3


@dataclass(frozen=True)
class Statistics:
    """Of latent clips x [N, C, T, H, W].

    Args:
        mean: of every channel, [C] float64 on the CPU.
        spread: root of the variance inside a clip, mean over channels.
        variation: root of the variance between clips, in a coarse picture of each (GRID); None of one clip.
        seeds: the same between clips of one prompt; None where no prompt has several.
        motion: root mean square of the difference between one latent frame and the next; None of single frames.
        noise: how much `mean`, `spread` and `motion`, as `drift` has them, differ from clip to clip: one standard deviation.
    """

    mean: Tensor
    spread: float
    variation: float | None
    seeds: float | None
    motion: float | None
    noise: Mapping[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """As a checkpoint keeps them."""
        return dict(vars(self))


class Sums:
    """What `Statistics` are made of; `add` takes the clips of one prompt or of several, `result` is the same on all processes."""

    def __init__(self, sums: Mapping[str, Tensor] | None = None) -> None:
        self._sums: dict[str, Tensor] = dict(sums or {})

    def add(self, clips: Tensor) -> None:
        """Samples [P, S, C, T, H, W] of P prompts from S seeds."""
        prompts, seeds = clips.shape[:2]
        x = clips.flatten(0, 1).double()
        coarse = adaptive_avg_pool3d(x, GRID).reshape(prompts, seeds, -1)
        means, within = x.mean((2, 3, 4)), x.flatten(2).var(2, correction=0).mean(1)
        motion = x.diff(dim=2).square().mean((1, 2, 3, 4)) if x.shape[2] > 1 else torch.zeros(len(x))
        self._gather(
            clips=torch.tensor(float(len(x))),
            mean=means.sum(0),
            mean_squares=means.square().sum(0),
            within=within.sum(),
            within_squares=within.square().sum(),
            coarse=coarse.sum((0, 1)),
            squares=coarse.square().sum((0, 1)),
            of_seeds=coarse.var(1, correction=1).mean(-1).sum() if seeds > 1 else torch.zeros(()),
            prompts=torch.tensor(float(prompts if seeds > 1 else 0)),
            motion=motion.sum(),
            motion_squares=motion.square().sum(),
            moving=torch.tensor(float(len(x) if x.shape[2] > 1 else 0)),
        )

    def result(self, shared: int = 1) -> Statistics:
        """Over all processes, of which each `shared` added the same. Collective; every process has added something."""
        flat = torch.cat([one.reshape(-1) for one in self._sums.values()]).to(context.device())
        if context.world_size() > 1:
            dist.all_reduce(flat)
        parts = torch.split(flat.cpu() / shared, [one.numel() for one in self._sums.values()])
        total = {name: part.reshape(self._sums[name].shape) for name, part in zip(self._sums, parts, strict=True)}
        count, coarse = float(total["clips"]), total["coarse"]
        between = (total["squares"] - coarse.square() / count).mean()
        spread = _root(total["within"], count)
        assert spread is not None
        variation, moving = _root(between, count - 1), float(total["moving"])
        of_means = (total["mean_squares"] / count - (total["mean"] / count).square()).mean()
        noise = {
            "mean": math.sqrt(max(float(of_means), 0.0)) / max(math.hypot(spread, variation or 0.0), _LEAST),
            "spread": _of_logarithm(total["within"], total["within_squares"], count),
            "motion": _of_logarithm(total["motion"], total["motion_squares"], moving),
        }
        return Statistics(
            mean=total["mean"] / count,
            spread=spread,
            variation=variation,
            noise=noise,
            seeds=_root(total["of_seeds"], float(total["prompts"])),
            motion=_root(total["motion"], moving),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What the initialiser takes."""
        return dict(self._sums)

    def _gather(self, **sums: Tensor) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().double().cpu()


def drift(found: Statistics, reference: Statistics) -> dict[str, float]:
    """How far `found` is from a reference, by name; what cannot be told is left out.

    `mean`: root mean square over channels of how far it moved, in standard deviations of all that the reference holds, >= 0.
    `spread`, `variation`, `seeds` and `motion`: natural logarithm of the ratio to the reference's, held inside +-6.9; 0 is the
    same. Infinite where `found` is not finite.
    """
    moved = (found.mean - reference.mean).square().mean().sqrt()
    scale = math.hypot(reference.spread, reference.variation or 0.0)
    measures = {"mean": float(moved) / max(scale, _LEAST)}
    for name in ("spread", "variation", "seeds", "motion"):
        now, then = getattr(found, name), getattr(reference, name)
        if now is not None and then:
            measures[name] = math.log(min(max(now / then, _LEAST), _MOST)) if math.isfinite(now) else math.inf
    return {name: value if math.isfinite(value) else math.inf for name, value in measures.items()}


def _of_logarithm(total: Tensor, squares: Tensor, count: float) -> float:
    """Standard deviation of the logarithm of the root of values, from their sum and that of their squares, to first order."""
    mean = float(total) / max(count, 1.0)
    variance = float(squares) / max(count, 1.0) - mean**2
    return math.sqrt(max(variance, 0.0)) / (2 * mean) if mean > 0 else 0.0


def sure(found: Statistics, reference: Statistics, prompts: int) -> dict[str, float]:
    """`drift` of samples of so many prompts without what may be chance: by how much it exceeds three standard errors.

    Of many prompts all measures count as they are; of few, those of which it is known how much they differ from clip to clip.
    """
    measures = drift(found, reference)
    if prompts >= ENOUGH_PROMPTS:
        return measures
    errors = {
        name: 3 * math.hypot(noise, found.noise[name]) / math.sqrt(prompts) for name, noise in reference.noise.items()
    }
    return {
        name: math.copysign(max(abs(value) - errors[name], 0.0), value)
        for name, value in measures.items()
        if name in errors
    }


def _root(total: Tensor, count: float) -> float | None:
    """Of the mean of `count` values that sum to `total`; None of no values."""
    return math.sqrt(max(float(total), 0.0) / count) if count > 0 else None
