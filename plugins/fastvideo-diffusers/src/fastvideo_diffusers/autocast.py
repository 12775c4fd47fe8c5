"""A network of a run as sampling code calls it: in eval mode, and under autocast as it is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """A transformer under bfloat16 autocast where its weights are float32, with what diffusers' pipelines ask of one.

    Only its own call is under autocast: the scheduler's arithmetic stays in float32.

    Args:
        transformer: a diffusers model, called with `hidden_states` and keywords.
        enabled: false leaves it as it is.
    """

    def __init__(self, transformer: nn.Module, *, enabled: bool = True) -> None:
        super().__init__()
        self._transformer: Any = transformer
        self._enabled = enabled

    @property
    def config(self) -> Any:
        return self._transformer.config

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._transformer.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self._transformer.device
        return device

    def cache_context(self, *args: Any, **kwargs: Any) -> Any:
        return self._transformer.cache_context(*args, **kwargs)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        enabled = self._enabled and self.dtype == torch.float32
        with torch.autocast(hidden_states.device.type, dtype=torch.bfloat16, enabled=enabled):
            return self._transformer(hidden_states=hidden_states, **kwargs)
