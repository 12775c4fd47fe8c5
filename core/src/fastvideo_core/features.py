"""Hidden states of a network, taken from its own forward so that sharding and checkpointing hooks run as always."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def capture_outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside, the list grows by each module's output tensor as the forward reaches it; for tuples the first item."""
    outputs: list[Tensor] = []

    def take(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(take) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
