"""Hidden states of a network for a family's `extract_features`, taken from its own forward so that all hooks run as always."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


def features_of(modules: Sequence[nn.Module], predict: Callable[[], Tensor]) -> list[Tensor]:
    """The output of each module (of a tuple its first) during `predict()`, which calls the network as always.

    A sharded network gathers its weights for the backward pass when the gradient of its own output comes. Each feature
    therefore depends on the prediction too, with a gradient of 0; its value is untouched.
    """
    outputs: list[Tensor] = []

    def take(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(take))
        prediction = predict()
    return list(_WithPrediction.apply(prediction, *outputs))  # type: ignore[no-untyped-call]


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
