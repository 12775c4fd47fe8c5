"""Adapters around a family's: one that has less, one that has nothing, and one that remembers how networks were called."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import AttentionKind
from fastvideo_core.contracts.adapter_check import members_of
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.roles import RoleHandle


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


class AttentionRecorder:
    """A family's adapter that remembers with which kinds of attention trained networks were called."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self.kinds: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._adapter, name)
        if name not in ("predict_x0", "predict_noise"):
            return value

        def predict(handle: RoleHandle, *args: Any, attn_kind: AttentionKind = "dense", **kwargs: Any) -> Any:
            if handle.trainable:
                self.kinds.add(attn_kind)
            return value(handle, *args, attn_kind=attn_kind, **kwargs)

        return predict
