"""One iteration of a method as the trainer makes it, metered by part, on real tensors or on those without values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_iter, tree_map

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.placing.shard import set_gradient_sync
from fastvideo_core.training.updates import clip_gradients
from fastvideo_tools.simulate.meter import Meter, Part

FORWARD, WITH_GRAPH, BACKWARD, CLIP, OPTIMIZER = "forward", "forward with graph", "backward", "clip", "optimizer"
DRAWS = 100
"""Iterations over which the calls of networks are averaged: how many of them there are may be drawn."""


class Calls:
    """Attributes calls of the roles' networks to their role, and makes their tensors in `fake`, if given."""

    def __init__(self, method: DistillMethod, meter: Meter, fake: FakeTensorMode | None = None) -> None:
        self.method, self.meter, self.fake = method, meter, fake
        self.graphs: list[str] = []  # roles that were called with a graph since the last backward
        self.count: Counter[Part] = Counter()
        self.outputs: dict[Any, Any] = {}  # shapes of what networks gave, by network and shape of the input
        self._inside: list[ExitStack] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the networks' calls are told apart."""
        networks = {id(n): (h.name, n) for h in self.method.bundle if not h.borrows for n in h.modules.values()}
        with ExitStack() as hooks:
            for role, network in networks.values():
                before = network.register_forward_pre_hook(self._enter(role), prepend=True)
                after = network.register_forward_hook(self._leave, with_kwargs=True, always_call=True)
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            yield

    def _enter(self, role: str) -> Any:
        def enter(module: nn.Module, args: Any) -> None:
            graph = torch.is_grad_enabled()
            if graph:
                self.graphs.append(role)
            part = Part(role, WITH_GRAPH if graph else FORWARD)
            self.count[part] += 1
            stack = ExitStack()
            stack.enter_context(self.made(part))
            self._inside.append(stack)

        return enter

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if self._inside:
            self._inside.pop().close()
        self.outputs[_input(module, args, kwargs)] = tree_map(_shape, out)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, networks give what has the shape of what they gave before, and compute nothing."""
        networks = [(h.name, n) for h in self.method.bundle if not h.borrows for n in h.modules.values()]
        for role, network in networks:
            # in place of the whole call, hooks among it: what `Module.compile` sets
            network._compiled_call_impl = partial(self._answer, role, network)
        try:
            yield
        finally:
            for _, network in networks:
                network._compiled_call_impl = None

    def _answer(self, role: str, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.count[Part(role, WITH_GRAPH if torch.is_grad_enabled() else FORWARD)] += 1
        with self.fake or nullcontext():
            return tree_map(_made, self.outputs[_input(network, args, kwargs)])

    @contextmanager
    def made(self, part: Part) -> Iterator[None]:
        """Inside, tensors are made without values, and what is counted is this part's; the meter stays the outermost mode."""
        meter: Any = self.meter
        meter.__exit__(None, None, None)
        try:
            with self.fake or nullcontext(), meter, meter.of(part):
                yield
        finally:
            meter.__enter__()

    def backward(self, losses: dict[str, Any], outputs: Mapping[str, Any], rounds: int) -> None:
        """A phase's backward pass, of the roles whose graphs it goes through."""
        of, self.graphs = "+".join(dict.fromkeys(self.graphs)), []
        with self.made(Part(of, BACKWARD)):
            self.method.backward(losses, outputs, grad_accum_rounds=rounds)


def iterate(calls: Calls, batch: Any, iteration: int) -> None:
    """All rounds of one iteration, clipping, the flag that processes agree on, and the update."""
    method, meter, training = calls.method, calls.meter, calls.method.cfg.training
    rounds = training.gradient_accumulation_steps
    with calls.watched(), meter.watching_weights(), meter:
        for number in range(1, rounds + 1):
            if rounds > 1 and not training.sync_gradients_every_round:
                set_gradient_sync(method.bundle, enabled=number == rounds)
            for losses, outputs in phases(method, batch, iteration):
                calls.backward(losses, outputs, rounds)
        for optimizer in method.get_optimizers(iteration):
            owner = next((h.name for h in method.bundle if optimizer in h.optimizers.values()), "")
            with calls.made(Part(owner, CLIP)):
                clip_gradients(optimizer, method.max_grad_norm(optimizer))
        with meter.of(Part("", CLIP)):
            if context.world_size() > 1:
                dist.all_reduce(torch.zeros(2), op=dist.ReduceOp.MAX)
        meter.peaking = (
            False  # the state that the first step makes counts as state, and a GPU's optimizer is one kernel
        )
        with meter.of(Part("", OPTIMIZER)):
            method.optimizers_schedulers_step(iteration)
        method.optimizers_zero_grad(iteration)


def phases(method: DistillMethod, batch: Any, iteration: int) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """(losses, outputs) of each phase of a round; each is to be back-propagated before the next is asked for."""
    sparsity = method.cfg.training.vsa_sparsity_at(iteration)
    result = method.single_train_step(batch, iteration, current_vsa_sparsity=sparsity)
    for losses, outputs, _ in iter([result]) if isinstance(result, tuple) else result:
        yield losses, outputs


def mean_calls(
    method: DistillMethod, calls_of: Mapping[tuple[str, ...], Calls], batch: Any
) -> dict[tuple[str, ...], dict[Part, float]] | None:
    """Network calls of the mean iteration by the roles that it updates; None where only computing tells what is called."""
    known = {key: out for calls in calls_of.values() for key, out in calls.outputs.items()}
    counts: dict[tuple[str, ...], Counter[Part]] = {due: Counter() for due in calls_of}
    times: Counter[tuple[str, ...]] = Counter()
    try:
        for iteration in range(1, DRAWS + 1):
            due = tuple(handle.name for handle in method.due_roles(iteration))
            calls = Calls(method, Meter(), calls_of[due].fake)
            calls.outputs |= known
            with calls.answering():
                for _ in phases(method, batch, iteration):
                    pass
            counts[due] += calls.count
            times[due] += 1
    except Exception:  # a method's own code on answers without meaning: hooks on blocks, values
        return None
    rounds = method.cfg.training.gradient_accumulation_steps
    return {
        due: {part: rounds * n / times[due] for part, n in count.items()} for due, count in counts.items() if times[due]
    }


def _input(network: nn.Module, args: Any, kwargs: Any) -> tuple[int, Any]:
    """A network and the shape of its first tensor."""
    first = next((value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)), None)
    return id(network), None if first is None else tuple(first.shape)


@dataclass(frozen=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: torch.dtype


def _shape(value: Any) -> Any:
    return _Shape(tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value


def _made(value: Any) -> Any:
    if not isinstance(value, _Shape):
        return value
    graph = torch.is_grad_enabled() and value.dtype.is_floating_point
    return torch.empty(value.shape, dtype=value.dtype, requires_grad=graph)
