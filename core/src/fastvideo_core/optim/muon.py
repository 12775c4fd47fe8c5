"""Muon (Jordan et al. 2024): momentum whose update of every matrix is made orthogonal; AdamW for what is no matrix.

Not torch.optim.Muon: that one iterates in bfloat16, and of a gradient of low rank most of its update points out of the gradient's
range, where rounding chooses the direction (test_muon.py shows both).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic whose repeated use brings all singular values near 1
RMS = 0.2  # of an AdamW update at learning rate 1; a matrix's update is scaled to it, so that one rate fits both


class Muon(torch.optim.AdamW):
    """Muon for `matrices`, AdamW for `others`, with one learning rate for both (Liu et al. 2025, arXiv:2502.16982, equation 4).

    A matrix W [m, n] with gradient G moves by -lr (0.2 sqrt(max(m, n)) O + weight_decay W), where O is the orthogonal factor of
    G + momentum (B - G), B being the running mean of gradients. Matrices are whole: shards of one have no orthogonal factor of
    their own. `adamw` is what AdamW takes; `lr` and the decoupled `weight_decay` are the matrices' too.
    """

    def __init__(
        self, matrices: Sequence[nn.Parameter], others: Sequence[nn.Parameter], *, momentum: float = 0.95, **adamw: Any
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(matrices), "momentum": momentum}]
        if others:
            groups.append({"params": list(others)})
        super().__init__(groups, **adamw)

    # "override": the base takes a closure and returns its loss.
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; without a closure, unlike other optimizers."""
        groups = self.param_groups
        for group in groups:
            if "momentum" in group:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if "momentum" not in group]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            by_shape[parameter.shape].append((parameter, parameter.grad.lerp(mean, group["momentum"])))
        for shape, items in by_shape.items():
            factors = orthogonal(torch.stack([direction for _, direction in items]))
            for (parameter, _), factor in zip(items, factors, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(factor, alpha=-group["lr"] * RMS * max(shape) ** 0.5)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of each matrix U S V^T [N, m, n], by Newton-Schulz iteration: singular values end between 0.7 and 1.2.

    In float32; zero stays zero.
    """
    first, third, fifth = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return (x.mT if tall else x).to(matrices.dtype)
