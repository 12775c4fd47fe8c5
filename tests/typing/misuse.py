"""Misuse that a type checker must tell a plug-in's author of: `nox -s types` reads this file, and nobody runs it.

Every mistake carries the error that mypy --strict gives for it; were the API untyped, the comment would be unused, which is an
error too.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from fastvideo_core import DistillMethod, MethodConfig, ModelFamily, RoleHandle, RunConfig, TrainingBatch
from fastvideo_core.contracts.adapter import AddNoise, PredictX0
from fastvideo_testing import MethodPluginSuite


class Needs(AddNoise, PredictX0, Protocol):
    """What the method calls."""


class Method(DistillMethod[Needs]):
    """Asks for what it did not declare, and hands over what does not fit."""

    def single_train_step(self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0) -> Any:
        prepared: TrainingBatch = self.prepare_batch(batch)
        t = torch.zeros(prepared.batch_size)
        predict = self.adapter.predict_noise  # type: ignore[attr-defined]
        self.adapter.add_noise(prepared.latents, t)  # type: ignore[call-arg]
        self.adapter.predict_x0("student", prepared.latents, t, prepared, conditional=True)  # type: ignore[arg-type]
        return predict, prepared.latent  # type: ignore[attr-defined]


class Family(ModelFamily):
    """Does not build what a run takes."""

    def build(self, cfg: RunConfig) -> RoleHandle:  # type: ignore[override]
        return RoleHandle("student", [])  # type: ignore[arg-type]


class Config(MethodConfig):
    """Reads a run's options."""

    def check_run(self, cfg: RunConfig) -> list[str]:  # type: ignore[override]
        rate = cfg.training.learning_rat  # type: ignore[attr-defined]
        return [rate]


class TestMethod(MethodPluginSuite):
    """Names the plug-in by its class."""

    plugin = Method  # type: ignore[assignment]
