"""The family `two`: the toy family, whose roles have a network above and one below a timestep where their path says so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvideo_core import register_model
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion.noise_ranges import Ranges
from fastvideo_testing.toy import ToyAdapter, ToyConfig, build_toy_components

BOUNDARY = 600.0
TWO = "toy/two/"
"""A role whose path begins so has a network above BOUNDARY, `transformer`, and one below, `transformer_2`."""

RANGES = {"transformer": (BOUNDARY, 1000.0), "transformer_2": (0.0, BOUNDARY)}


class TwoNetworksAdapter(ToyAdapter):
    """The boundary itself belongs to the upper network."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        if len(handle.modules) == 1:
            return ((0.0, 1000.0),)
        return tuple(RANGES[name] for name in ("transformer_2", "transformer"))

    def predict_noise(self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(handle.modules) == 2:
            # As sharded networks do, the whole call uses one network, whatever the other samples need.
            name = "transformer" if float(t.flatten()[0]) >= BOUNDARY else "transformer_2"
            handle = RoleHandle(handle.name, {"transformer": handle.modules[name]}, handle.family)
        return super().predict_noise(handle, noisy_latents, t, *args, **kwargs)


def register() -> None:
    """Makes the family known, beside those that are."""
    register_model("two", config=ToyConfig)(build)


def build(cfg: RunConfig) -> ModelComponents:
    components = build_toy_components(cfg)
    for handle in components.bundle:
        if cfg.roles[handle.name].path.startswith(TWO):
            upper = handle.modules["transformer"]
            lower = type(upper)(2, cfg.pipeline_config.width, cfg.pipeline_config.depth)
            with torch.no_grad():
                for (_, one), (_, other) in zip(upper.named_parameters(), lower.named_parameters(), strict=True):
                    other.copy_(-one)
            handle.modules["transformer_2"] = lower.train(handle.trainable)
    adapter = TwoNetworksAdapter(components.adapter.flow_shift)
    return ModelComponents(components.bundle, adapter, dataloader=components.dataloader)
