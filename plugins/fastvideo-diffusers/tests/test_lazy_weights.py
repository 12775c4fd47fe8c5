"""Weights that are loaded at their first use."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from fastvideo_diffusers.lazy_weights import LazyWeights


def test_it_is_loaded_once_at_the_first_use_and_again_after_it_was_freed():
    made: list[weakref.ref[nn.Module]] = []

    def load() -> nn.Module:
        module = nn.Linear(2, 2)
        made.append(weakref.ref(module))
        return module

    weights = LazyWeights(load, torch.device("cpu"))
    assert made == []
    assert weights.get() is weights.get()
    assert len(made) == 1
    weights.free()
    gc.collect()
    assert made[0]() is None
    assert weights.get() is made[1]()
    weights.free()
    weights.free()
