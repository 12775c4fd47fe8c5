"""Weights that are loaded at their first use and can be let go of."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class LazyWeights(Generic[T]):
    """What `load` gives, loaded at the first `get`.

    Args:
        load: reads it; called again after `free`.
        device: where it lies.
    """

    def __init__(self, load: Callable[[], T], device: torch.device) -> None:
        self._load = load
        self._device = device
        self._loaded: T | None = None

    def get(self) -> T:
        """What was loaded."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def free(self) -> None:
        """Lets go of it, and gives its memory on the device back; the next `get` loads it again."""
        self._loaded = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
