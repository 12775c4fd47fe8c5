"""Hidden states of a network, taken from its own forward so that sharding and checkpointing hooks run as always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def features_of(modules: Sequence[nn.Module], predict: Callable[[], Tensor]) -> list[Tensor]:
    """The output of each module during `predict()`, fit for a loss of their own on any number of processes.

    A sharded network gathers its weights for the backward pass when the gradient of its own output comes. Each feature
    therefore depends on the prediction too, with a gradient of 0; its value is untouched.

    Args:
        modules: parts of the network, each called once.
        predict: calls the network as always; its prediction must depend on the network's output.
    """
    with capture_outputs(modules) as outputs:
        prediction = predict()
    return list(_WithPrediction.apply(prediction, *outputs))  # type: ignore[no-untyped-call]


@contextmanager
def capture_outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside, the list grows by each module's output tensor as the forward reaches it; for tuples the first item.

    To look at. For a loss on them take `features_of`: a sharded network cannot go back from these alone.
    """
    outputs: list[Tensor] = []

    def take(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(take) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


class _WithPrediction(torch.autograd.Function):
    """Features as they are; going back, the prediction's gradient is 0."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.prediction = prediction.shape, prediction.dtype, prediction.device
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        shape, dtype, device = ctx.prediction
        return torch.zeros(shape, dtype=dtype, device=device), *gradients
