"""How much memory an evaluation of a network holds, found by running it on tensors that have shapes and no values."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fastvideo_core.contracts.roles import RoleHandle


class EvaluationBytes(NamedTuple):
    """The most bytes that one evaluation holds beside the network's weights; all but the first are 0 where it has no graph."""

    forward: int  # by a forward without a graph
    held: int = 0  # by a graph between forward and backward
    activations: int = 0  # by forward and backward, gradients of weights left out
    with_gradients: int = 0  # by forward and backward, these gradients among it
    on_host: int = 0  # in host memory, by a graph between forward and backward


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operators make inside it for as long as they live, each storage once.

    `known` are tensors that live anyway.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.activations_peak = self.on_host = self._gradients = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._add(value)
        return out

    def count_as_gradient(self, parameter: Tensor) -> None:
        """A hook for after a parameter's gradient is complete."""
        assert parameter.grad is not None
        self._add(parameter.grad)
        self._gradients += parameter.grad.untyped_storage().nbytes()

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._seen:
            return
        self._seen.add(address)
        size = storage.nbytes()
        if tensor.device.type == "meta":  # by `host_copies`, once each
            self.on_host += size
            return
        self.live += size
        self.peak = max(self.peak, self.live)
        self.activations_peak = max(self.activations_peak, self.live - self._gradients)
        weakref.finalize(storage, self._remove, address, size)

    def _remove(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self.live -= size


def evaluation_bytes(handle: RoleHandle, evaluate: Callable[[int], Tensor], *, samples: int) -> EvaluationBytes:
    """What evaluating a role's networks once takes; with a graph, and back through it, where the role is trained.

    `evaluate` runs them, which are on the meta device and of no use afterwards, on so many samples.
    """
    parts = handle.modules.values()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in parts:
            module.to_empty(device="cpu")
        weights = [tensor for module in parts for tensor in (*module.parameters(), *module.buffers())]
        with torch.no_grad(), LiveBytes(weights) as alone:
            evaluate(samples)
        if not handle.trainable:
            return EvaluationBytes(alone.peak)
        with LiveBytes(weights) as live:
            for weight in handle.trainable_parameters():
                weight.register_post_accumulate_grad_hook(live.count_as_gradient)  # type: ignore[no-untyped-call]
            out = evaluate(samples)
            held = live.live
            out.float().square().mean().backward()  # type: ignore[no-untyped-call]
        return EvaluationBytes(alone.peak, held, live.activations_peak, live.peak, live.on_host)


def host_copies() -> saved_tensors_hooks:
    """Stands for torch's `save_on_cpu` where tensors have no values: what is on meta is in host memory."""
    return saved_tensors_hooks(partial(torch.empty_like, device="meta"), partial(torch.empty_like, device="cpu"))
