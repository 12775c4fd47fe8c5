"""Counts what operators compute, send and hold, of real tensors and of those without values alike."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed import distributed_c10d
from torch.distributed.fsdp._fully_shard import _fsdp_param, _fsdp_param_group
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

_NAMESPACES = ("c10d", "_c10d_functional")
_KINDS = {
    "gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "reduce": "all-reduce",
    "broadcast": "broadcast",
    "all_to_all": "all-to-all",
}
_SHAPES = "_propagate_tensor_meta_non_cached"
_CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


class Sent(NamedTuple):
    """A kind of collective: its name, the ranks of its group, and whether these share a sample, whose `tokens` are sent."""

    kind: str
    ranks: tuple[int, ...]
    tokens: bool = False

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.kind} of tokens" if self.tokens else self.kind


class Part(NamedTuple):
    """A part of an iteration: whose it is, and what: `forward`, `forward with graph`, `backward`, `clip`, `optimizer`."""

    role: str
    what: str


@dataclass
class Cost:
    """What a part takes: FLOPs by kind, bytes that element-wise operators touch, operators, and collectives as [count, bytes].

    The bytes of a collective are those of its larger side: what an all-gather gives, and what a reduce-scatter takes.
    """

    flops: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    moved: float = 0.0
    operators: float = 0.0
    sent: dict[Sent, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, other: Cost, times: float = 1.0) -> None:
        """Adds another part, so many times."""
        for kind, count in other.flops.items():
            self.flops[kind] += times * count
        self.moved += times * other.moved
        self.operators += times * other.operators
        for key, (count, size) in other.sent.items():
            self.sent[key][0] += times * count
            self.sent[key][1] += times * size


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by part while it is entered; `part` is what is going on.

    `peak` is the most that tensors made inside it hold at once, each storage once, while it is `peaking`; `gathered` that of
    whole weights among it, by role. `known` are storages that live anyway; tensors without values are of `fake`.
    """

    def __init__(self, known: Iterable[Tensor] = (), fake: FakeTensorMode | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = fake
        self.costs: dict[Part, Cost] = defaultdict(Cost)
        self.part = Part("", "between")
        self.live = self.peak = 0
        self.peaking = True
        self.peak_part = self.part
        self.gathered: dict[str, int] = defaultdict(int)
        self._gathered_now = 0
        self._asked = False
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self._whole: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to its shards is seen
        given: Any = func
        out = given(*args, **(kwargs or {}))
        others = (isinstance(value, FakeTensor) and value.fake_mode is not self._fake for value in tree_iter(out))
        if self._asked or any(others):
            return out  # with which DTensor finds out whole shapes, the first time
        cost = self.costs[self.part]
        if given.namespace in _NAMESPACES:
            _count_sent(cost, given, args, out)
        else:
            self._count_computed(cost, given, args, kwargs or {}, out)
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._track(value)
        return out

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Inside, what is counted is this part's."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    @contextmanager
    def watching_weights(self) -> Iterator[None]:
        """Inside, storages that FSDP gives and takes back, which no operator tells, are counted too; what DTensor makes to find
        out whole shapes, in whatever mode is entered, is not."""
        places = (_fsdp_param, _fsdp_param_group)
        before: list[tuple[Any, str, Any]] = [
            (place, name, getattr(place, name))
            for place in places
            for name in ("alloc_storage", "free_storage")
            if hasattr(place, name)
        ]

        def told(resize: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
            def resized(tensor: Tensor) -> None:
                resize(tensor)
                self._resized(tensor)

            return resized

        def unseen(find_out: Callable[..., Any]) -> Callable[..., Any]:
            def found_out(*args: Any) -> Any:
                outer, self._asked = self._asked, True
                try:
                    return find_out(*args)
                finally:
                    self._asked = outer

            return found_out

        try:
            for place, name, resize in before:
                setattr(place, name, told(resize))
            before.append((ShardingPropagator, _SHAPES, getattr(ShardingPropagator, _SHAPES)))
            setattr(ShardingPropagator, _SHAPES, unseen(getattr(ShardingPropagator, _SHAPES)))
            yield
        finally:
            for place, name, resize in before:
                setattr(place, name, resize)

    def _count_computed(self, cost: Cost, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        packet = func._overloadpacket
        name = packet._qualified_op_name.partition("::")[2]
        if name.startswith(_CPU_ATTENTION):
            cost.flops["attention"] += _attention_flops(args, backward=name.endswith("backward"))
            cost.operators += 1
        elif packet in flop_registry:
            kind = "attention" if "attention" in name or "bmm" in name else "linear"
            cost.flops[kind] += flop_registry[packet](*args, **kwargs, out_val=out)
            cost.operators += 1
        else:
            tensors = [value for value in tree_iter(out) if isinstance(value, Tensor)]
            taken = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
            storages = {tensor.untyped_storage()._cdata for tensor in taken}
            changes = func._schema.is_mutable
            if made := [t for t in tensors if changes or t.untyped_storage()._cdata not in storages]:
                cost.flops["rest"] += sum(t.numel() for t in made)
                if not name.startswith(("empty", "new_empty")):
                    cost.operators += 1
                    cost.moved += sum(t.numel() * t.element_size() for t in (*made, *taken))

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._sizes:
            self._sizes[address] = 0
            weakref.finalize(storage, self._gone, address)
            self._hold(address, storage.nbytes())

    def _hold(self, address: int, size: int) -> None:
        self.live += size - self._sizes[address]
        self._sizes[address] = size
        if self.live > self.peak and self.peaking:
            self.peak, self.peak_part = self.live, self.part

    def _resized(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address not in self._sizes:
            self._track(tensor)
        self._hold(address, size)
        self._gathered_now += size - self._whole.get(address, 0)
        self._whole[address] = size
        self.gathered[self.part.role] = max(self.gathered[self.part.role], self._gathered_now)

    def _gone(self, address: int) -> None:
        self.live -= self._sizes.pop(address, 0)
        self._gathered_now -= self._whole.pop(address, 0)


def _attention_flops(args: Sequence[Any], *, backward: bool) -> float:
    """Of query [B, H, S, D] and key; going back computes five products in place of two, scores among them."""
    query, key, value = args[1:4] if backward else args[:3]
    scores = math.prod(query.shape[:3]) * key.shape[2] * 2
    width, out = query.shape[3], value.shape[3]
    return float(scores * (3 * width + 2 * out) if backward else scores * (width + out))


def _count_sent(cost: Cost, func: Any, args: Sequence[Any], out: Any) -> None:
    name = func._schema.name.partition("::")[2]
    words = name.replace("allgather", "gather").replace("allreduce", "reduce").replace("alltoall", "all_to_all")
    kind = next((kind for word, kind in _KINDS.items() if word in words), None)
    if kind is None:
        return  # wait_tensor
    sizes = [sum(_bytes(value) for value in tree_iter(arg)) for arg in (*args, out)]
    entry = cost.sent[Sent(kind, *_group(args))]
    entry[0] += 1
    entry[1] += max(sizes)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _group(args: Sequence[Any]) -> tuple[tuple[int, ...], bool]:
    """The ranks of the group that a collective is given, by name or boxed, and whether it is that of `sequence_parallel`."""
    for arg in args:
        group = _named(arg) if isinstance(arg, str) else None
        if isinstance(arg, torch.ScriptObject):
            try:
                group = dist.ProcessGroup.unbox(arg)
            except RuntimeError:  # a ReduceOp
                continue
        if group is not None:
            return tuple(dist.get_process_group_ranks(group)), group.group_desc == "tokens"
    return (), False


def _named(name: str) -> Any:
    try:
        return distributed_c10d._resolve_process_group(name)  # type: ignore[attr-defined,arg-type]  # torch lists neither
    except (RuntimeError, ValueError):
        return None
