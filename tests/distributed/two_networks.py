"""The family `two`: the toy family, whose roles have a network above and one below a timestep where their path says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from fastvideo_core import register_method, register_model
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import Ranges
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.distributed import context
from fastvideo_finetune.config import FinetuneConfig
from fastvideo_finetune.method import FinetuneMethod
from fastvideo_testing.draws import PerSampleDraws
from fastvideo_testing.runs import toy_family
from fastvideo_testing.toy import ToyAdapter, ToyConfig, build_toy_components

STEPS = 12
BOUNDARY = 600.0
TWO = "two/"
"""A role whose path begins so has a network above BOUNDARY, `transformer`, and one below, `transformer_2`."""

RANGES = {"transformer": (BOUNDARY, 1000.0), "transformer_2": (0.0, BOUNDARY)}


class TwoNetworksAdapter(ToyAdapter):
    """The boundary itself belongs to the upper network."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        if len(handle.modules) == 1:
            return ((0.0, 1000.0),)
        names = ("transformer_2", "transformer")
        return tuple(RANGES[name] for name in names if not handle.trainable or handle.may_train(name))

    def predict_noise(self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(handle.modules) == 2:
            # As sharded networks do, the whole call uses one network, whatever the other samples need.
            name = "transformer" if float(t.flatten()[0]) >= BOUNDARY else "transformer_2"
            handle = RoleHandle(handle.name, {"transformer": handle.modules[name]}, handle.family)
        return super().predict_noise(handle, noisy_latents, t, *args, **kwargs)


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


class IgnorantMethod(FinetuneMethod):
    """Knows nothing of noise ranges."""

    def sample_timesteps(self, batch_size: int) -> Tensor:
        generator = self.rng.local("timestep")
        return 1000 * torch.rand(batch_size, generator=generator, device=generator.device)


METHODS: dict[str, dict[str, Any]] = {
    "dmd2": {
        "roles": {"student": "toy/student", "teacher": f"{TWO}teacher", "critic": f"{TWO}critic"},
        "method_config": {"generator_update_interval": 2, "dmd_denoising_steps": [1000, 750, 500]},
    },
    "finetune": {"roles": {"student": f"{TWO}student"}},
    "consistency": {
        "roles": {"student": f"{TWO}student", "teacher": f"{TWO}teacher"},
        "method_config": {"solver": "heun", "solver_steps": 6, "target": "average", "denoising_steps": [1000]},
    },
    "rcm": {
        "roles": {"student": f"{TWO}student", "teacher": f"{TWO}teacher"},
        "method_config": {"dmd_weight": 0, "tangent_warmup_steps": 4, "dmd_denoising_steps": [1000]},
    },
    "kd": {"roles": {"student": f"{TWO}student"}, "method_config": {"denoising_steps": [1000, 750, 500]}},
    "phased": {
        "roles": {"student": f"{TWO}student", "teacher": f"{TWO}teacher", "critic": f"{TWO}critic"},
        "method": "dmd2",
        "train_modules": {"student": ["transformer"]},
        "training": {"frozen_cpu_offload": True},
        "method_config": {"phased": True, "generator_update_interval": 2, "dmd_denoising_steps": [1000, 750, 500]},
    },
    "ignorant": {"roles": {"student": f"{TWO}student"}},
}


def run_of(method: str, output_dir: Path, **training: Any) -> dict[str, Any]:
    """A run of the family; roles other than the teacher are trained."""
    given = METHODS[method]
    roles = {name: {"path": path, "trainable": name != "teacher"} for name, path in given["roles"].items()}
    for name, modules in given.get("train_modules", {}).items():
        roles[name]["train_modules"] = modules
    return {
        "recipe": {"family": "two", "method": given.get("method", method)},
        "roles": roles,
        "training": {
            "seed": 5,
            "output_dir": str(output_dir),
            "max_train_steps": STEPS,
            "num_gpus": context.world_size(),
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            **given.get("training", {}),
            **training,
        },
        "method_config": given.get("method_config", {}),
    }


@contextmanager
def two_networks_world() -> Iterator[None]:
    """Inside, the family `two` and the method `ignorant` exist beside everything installed."""
    with toy_family():
        register_model("two", config=ToyConfig)(build)
        register_method("ignorant", config=FinetuneConfig, roles=("student",))(IgnorantMethod)
        yield


class Observed:
    """Trains a runtime whose every sample draws its own numbers, however samples are dealt out to processes.

    Attributes:
        moved: of each iteration, the networks whose weights changed, as `role.network`.
    """

    def __init__(self, runtime: Any, batch_size: int) -> None:
        self.moved: list[list[str]] = []
        method = runtime.method
        step, update = method.single_train_step, method.optimizers_schedulers_step
        with PerSampleDraws(method, batch_size) as draws:

            def drawn(batch: Any, iteration: int, **options: Any) -> Any:
                draws.begin(iteration, context.rank() * batch_size)
                return step(batch, iteration, **options)

            def noted(iteration: int) -> None:
                before = self._networks(method)
                update(iteration)
                after = self._networks(method)
                self.moved.append([name for name in before if not torch.equal(before[name], after[name])])

            method.single_train_step, method.optimizers_schedulers_step = drawn, noted
            runtime.train()

    @staticmethod
    def _networks(method: Any) -> dict[str, Tensor]:
        return {
            f"{handle.name}.{name}": torch.cat([_whole(p).flatten() for p in module.parameters()])
            for handle in method.bundle
            for name, module in handle.modules.items()
        }


def _whole(parameter: Tensor) -> Tensor:
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().clone()
