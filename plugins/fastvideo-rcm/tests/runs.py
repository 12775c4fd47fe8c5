"""Runs of the method on the toy family, with networks that are known in closed form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.registry import register_model
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_testing.toy import ToyAdapter, ToyConfig, ToyFamily

MEAN, STD = 1.7, 0.6


def run_of(
    folder: Path, *, matching: bool = True, dims: int = 1, training: Any = None, pipeline: Any = None, **method: Any
) -> dict[str, Any]:
    """A run.yaml on data N(1.7, 0.36) of so many dimensions; `method` are options of method_config."""
    roles: dict[str, Any] = {
        "student": {"path": "toy/student", "trainable": True},
        "teacher": {"path": "toy/exact", "trainable": False},
    }
    if matching:
        roles["critic"] = {"path": "toy/critic", "trainable": True}
        method = {"generator_update_interval": 3, **method}
    else:
        method = {"dmd_weight": 0, **method}
    return {
        "recipe": {"family": "toy", "method": "rcm"},
        "roles": roles,
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 20,
            "train_batch_size": 4,
            "learning_rate": 1e-3,
            **(training or {}),
        },
        "pipeline_config": {"sampler_kind": "sde", "data": {"means": [[MEAN] * dims], "std": STD}, **(pipeline or {})},
        "method_config": {"tangent_warmup_steps": 2, **method},
    }


class OtherFamily(ToyFamily):
    """The toy family with another adapter."""

    adapter: type[ToyAdapter] = ToyAdapter

    def build(self, cfg: Any) -> Any:
        components = super().build(cfg)
        components.adapter.__class__ = self.adapter
        return components

    def adapter_class(self) -> type[ToyAdapter]:
        return self.adapter


def run_on(folder: Path, adapter: type[ToyAdapter], **options: Any) -> dict[str, Any]:
    """A run of a family with this adapter; to be called inside of `toy_family`."""
    register_model("other", config=ToyConfig)(type("Family", (OtherFamily,), {"adapter": adapter}))
    return {**run_of(folder, **options), "recipe": {"family": "other", "method": "rcm"}}


def built(folder: Path, **options: Any) -> Any:
    """The method of a run."""
    with toy_family():
        return build_run(folder, run_of(folder, **options)).method


def phases(method: Any, iteration: int, latents: Tensor | None = None) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Losses and metrics of each phase of an iteration, back-propagated."""
    latents = torch.randn(4, 1) + 1.7 if latents is None else latents
    given = method.single_train_step({"vae_latent": latents}, iteration)
    for losses, outputs, metrics in [given] if isinstance(given, tuple) else given:
        method.backward(losses, outputs)
        yield {name: loss.detach() for name, loss in losses.items()}, metrics


Calls = Counter[tuple[str, int, str]]


def calls_of(method: Any) -> Calls:
    """Network calls from now on: (role, samples, how), `forward mode`, `graph` or `plain`."""
    calls: Calls = Counter()

    def how(x: Tensor) -> str:
        if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
            return "forward mode"
        return "graph" if torch.is_grad_enabled() else "plain"

    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(
            lambda _, inputs, name=handle.name: calls.update([(name, len(inputs[0]), how(inputs[0]))])
        )
    return calls


def use(method: Any, role: str, network: nn.Module) -> nn.Module:
    """Puts a network into a role."""
    method.bundle[role].modules["transformer"] = network
    return network


def trained_roles(method: Any) -> set[str]:
    """Whose parameters have gradients."""
    return {h.name for h in method.bundle if any(p.grad is not None for _, p in h.named_parameters())}


class FlowMap(nn.Module):
    """The velocity whose clean end is that of the flow of N(mean, std^2), plus an offset; all of them parameters."""

    def __init__(self, mean: float, std: float, dims: int = 1) -> None:
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(std))
        self.offset = nn.Parameter(torch.zeros(dims))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        s = sigma[:, None]
        x0 = self.mean + self.std * (x - (1 - s) * self.mean) / (self.std**2 * (1 - s) ** 2 + s**2).sqrt()
        return (x - x0) / s + self.offset


class Constant(nn.Module):
    """The velocity `unconditional`, and `step` more with the caption."""

    def __init__(self, unconditional: float, step: float) -> None:
        super().__init__()
        self.unconditional, self.step = nn.Parameter(torch.tensor(unconditional)), step

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        return self.unconditional + self.step * condition + 0 * x
