"""The same noise for the same sample, however many processes share the global batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.distributed import context


class GlobalDraws(TorchFunctionMode):
    """Inside, every draw of a method is drawn for the global batch, and each rank keeps its own samples' part.

    With it W ranks of batch B draw for each sample what one process of batch W * B does, so that both are the same
    training. Draws have the batch in dim 0; those of `rng.shared` have none and stay as they are.
    """

    def __init__(self, method: DistillMethod, batch_size: int) -> None:
        super().__init__()
        self._batch_size = batch_size
        method.rng = RandomStreams(method.rng.seed, 0, method.rng.device)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func not in (torch.randn, torch.rand, torch.randint) or given.get("generator") is None:
            return func(*args, **given)
        bounds, args = (args[:-1], args[-1:]) if func is torch.randint and "size" not in given else ((), args)
        shape = _shape(args, given)
        if not shape or shape[0] != self._batch_size:
            return func(*bounds, *args, **given)
        given.pop("size", None)
        drawn: Tensor = func(*bounds, (shape[0] * context.world_size(), *shape[1:]), **given)
        start = context.rank() * shape[0]
        return drawn[start : start + shape[0]].clone()


def _shape(args: Sequence[Any], given: Mapping[str, Any]) -> tuple[int, ...]:
    size = args if args else (given["size"],)
    return tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
