"""Adapters in place of a family's: one that has less, and one that has nothing."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter_check import members_of
from fastvideo_core.contracts.method import DistillMethod


class OnlyDeclared:
    """An adapter that has what the method declares, and nothing else."""

    def __init__(self, adapter: Any, method: type[DistillMethod], cfg: RunConfig) -> None:
        self._adapter = adapter
        self._allowed = {*members_needed(method, cfg), "prepare_batch", "on_train_start", "noise_ranges"}
        self._method = method.__name__

    def __getattr__(self, name: str) -> Any:
        if name not in self._allowed:
            hint = f"let the Protocol that {self._method} is generic in inherit from one that has {name}"
            raise AssertionError(f"the method uses adapter.{name}, which it does not declare: {hint}")
        return getattr(self._adapter, name)


def members_needed(method: type[DistillMethod], cfg: RunConfig) -> list[str]:
    """The names of everything that a run of the method calls on the adapter beside prepare_batch."""
    needed = method.needs(cfg)
    protocols = [needed] if isinstance(needed, type) else needed
    return [name for protocol in protocols for name in members_of(protocol)]


class BareAdapter:
    """A family's adapter without a single primitive."""

    def prepare_batch(
        self,
        raw_batch: Any,
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: str = "data",
        generator: torch.Generator | None = None,
    ) -> None:
        raise NotImplementedError
