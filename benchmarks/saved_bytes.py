"""The memory of activations on any device: the bytes that autograd graphs hold for their backward pass."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class _Packed:
    """What a graph holds in place of a saved tensor; dies with the graph's buffers."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@dataclass
class SavedBytes:
    """Bytes that graphs hold for their backward pass: each storage once, weights left out.

    Args:
        weights: storages that live anyway.
    """

    weights: frozenset[int]
    live: int = 0
    peak: int = 0
    _holders: Counter[int] = field(default_factory=Counter)

    def _pack(self, tensor: Tensor) -> _Packed:
        packed = _Packed(tensor.detach())  # an output's own graph would hold itself where no backward passes through it
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self._hold(storage.data_ptr(), storage.nbytes(), 1)
            weakref.finalize(packed, self._hold, storage.data_ptr(), storage.nbytes(), -1)
        return packed

    def _hold(self, address: int, size: int, change: int) -> None:
        before = self._holders[address]
        self._holders[address] += change
        if 0 in (before, before + change):
            self.live += change * size
            self.peak = max(self.peak, self.live)

    def take_peak(self) -> int:
        """The peak since the last time."""
        peak, self.peak = self.peak, self.live
        return peak

    def counting(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, every graph that is made counts."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed.tensor)


def weights_of(networks: Mapping[str, nn.Module]) -> frozenset[int]:
    return frozenset(
        tensor.untyped_storage().data_ptr()
        for network in networks.values()
        for tensor in (*network.parameters(), *network.buffers())
    )
