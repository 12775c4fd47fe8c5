"""What a network is called with and gives, and where in it the adapter's latents stand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass
class NetworkCall:
    """One call of a network.

    Args:
        inputs: copies of its tensors and numbers, by the names of the network's parameters.
        outputs: copies of its tensors, in order.
    """

    inputs: dict[str, Tensor]
    outputs: list[Tensor] = field(default_factory=list)


Replace = Callable[[NetworkCall], Sequence[Tensor]]
"""From a call to what stands in the place of its outputs."""


@contextmanager
def record_calls(modules: Mapping[str, nn.Module], replace: Replace | None = None) -> Iterator[list[NetworkCall]]:
    """Inside, the list grows with every call of a role's networks; `replace` gives other outputs than the network's."""
    calls: list[NetworkCall] = []
    running: list[NetworkCall] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        running.append(NetworkCall(_named_tensors(module, args, kwargs)))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        call = running.pop()
        leaves, structure = tree_flatten(output)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        call.outputs = [leaves[place].detach().clone() for place in places]
        calls.append(call)
        if replace is None:
            return None
        for place, tensor in zip(places, replace(call), strict=True):
            leaves[place] = tensor.to(leaves[place].device, leaves[place].dtype)
        return tree_unflatten(leaves, structure)

    with ExitStack() as hooks:
        for module in modules.values():
            hooks.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(after, with_kwargs=True))
        yield calls


def _named_tensors(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Tensor]:
    try:
        given: Mapping[str, Any] = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        given = {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    found = {}
    for name, value in given.items():
        leaves, _ = tree_flatten(value)
        for place, leaf in enumerate(leaves):
            key = name if len(leaves) == 1 else f"{name}[{place}]"
            if isinstance(leaf, Tensor):
                found[key] = leaf.detach().clone()
            elif isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
                found[key] = torch.tensor(float(leaf))
    return found


@dataclass(frozen=True)
class Arrangement:
    """Where each number of some latents stands in a list of tensors, up to one sign for all.

    Args:
        order: for each number of the latents its place in the flattened tensors.
        shape: of the latents.
        sign: 1, or -1 where the tensors hold the negative.
        sizes: the shapes of the tensors.
    """

    order: Tensor
    shape: torch.Size
    sign: float
    sizes: tuple[torch.Size, ...]

    @classmethod
    def find(cls, latents: Tensor, tensors: Sequence[Tensor]) -> Arrangement | None:
        """How `tensors` hold `latents`, which are all different; None where they do not hold just these numbers."""
        if not tensors or sum(tensor.numel() for tensor in tensors) != latents.numel():
            return None
        values, held = latents.detach().double().flatten().cpu(), _flat(tensors)
        by_size, by_held = values.abs().argsort(), held.abs().argsort()
        ratio = held[by_held] / values[by_size]
        sign = 1.0 if float(ratio.median()) > 0 else -1.0
        if not torch.allclose(ratio, torch.full_like(ratio, sign), atol=1e-4):
            return None
        order = torch.empty_like(by_held)
        order[by_size] = by_held
        return cls(order, latents.shape, sign, tuple(tensor.shape for tensor in tensors))

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """The latents that the tensors hold."""
        return (self.sign * _flat(tensors))[self.order].reshape(self.shape).float()

    def write(self, latents: Tensor) -> list[Tensor]:
        """Tensors that hold the latents."""
        flat = torch.empty(latents.numel(), dtype=torch.float64)
        flat[self.order] = self.sign * latents.detach().double().flatten().cpu()
        parts = torch.split(flat, [size.numel() for size in self.sizes])
        return [part.reshape(size).float() for part, size in zip(parts, self.sizes, strict=True)]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])
