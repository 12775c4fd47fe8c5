"""How long an iteration takes on some hardware, and the same on another number of GPUs or in another shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastvideo_tools.simulate.hardware import Hardware
from fastvideo_tools.simulate.iterate import BACKWARD, CLIP, OPTIMIZER
from fastvideo_tools.simulate.meter import Cost, Part, Sent


@dataclass(frozen=True)
class Shape:
    """How processes share: `replicas` of `shards` each, `per_node` on a node."""

    replicas: int
    shards: int
    per_node: int

    @property
    def gpus(self) -> int:
        """All processes."""
        return self.replicas * self.shards

    def groups(self) -> dict[str, tuple[int, ...]]:
        """The ranks of rank 0's groups: those that share its shards, those that hold the same ones, all."""
        return {
            "shards": tuple(range(self.shards)),
            "replicas": tuple(range(0, self.gpus, self.shards)),
            "all": tuple(range(self.gpus)),
        }

    def place(self, ranks: tuple[int, ...]) -> str:
        """Where a group lies, in words."""
        nodes = len({rank // self.per_node for rank in ranks})
        return "inside a node" if nodes == 1 else f"across {nodes} nodes"


@dataclass(frozen=True)
class Times:
    """Seconds of an iteration: of computing, of sending, of both at once as far as passes hide it, and in turn."""

    compute: float
    sending: float
    overlapped: float
    apart: float

    def plus(self, other: Times, share: float) -> Times:
        """With so much of another."""
        return Times(
            self.compute + share * other.compute,
            self.sending + share * other.sending,
            self.overlapped + share * other.overlapped,
            self.apart + share * other.apart,
        )


def shaped(part: Part, cost: Cost, before: Shape, after: Shape, *, batch: float = 1.0) -> Cost:
    """What a part costs in another shape, and with so many times the batch.

    Gathered weights are the same, whatever shares them, as are gradients that are reduced to shards, up to padding; replicas add
    up shards of gradients.
    """
    result = Cost(moved=cost.moved * batch, operators=cost.operators)
    for kind, count in cost.flops.items():
        result.flops[kind] = count * batch
    old, new = before.groups(), after.groups()
    reduced = [0.0, 0.0]
    for sent, (count, size) in cost.sent.items():
        group = next((name for name, ranks in old.items() if ranks == sent.ranks), "")
        if sent.tokens or not group:  # of processes that share samples, which are neighbours in every shape
            result.sent[sent][0] += count
            result.sent[sent][1] += size * batch
            continue
        if group == "replicas" and sent.kind == "all-reduce" and size > 16 * count:
            continue  # those of gradients are made of the reduce-scatters
        # a role's gradients have a norm over its shards; flags are everybody's
        ranks = new["shards"] if group == "shards" and part.role else new["all"]
        if len(ranks) > 1:
            result.sent[Sent(sent.kind, ranks)][0] += count
            result.sent[Sent(sent.kind, ranks)][1] += size
        if sent.kind == "reduce-scatter":
            reduced[0] += count
            reduced[1] += size / after.shards
    if after.replicas > 1 and reduced[0]:
        entry = result.sent[Sent("all-reduce", new["replicas"])]
        entry[0] += reduced[0]
        entry[1] += reduced[1]
    return result


def seconds_of(sent: Sent, count: float, size: float, shape: Shape, machine: Hardware) -> float:
    """Time of `count` collectives of `size` bytes in all, as rings: every byte enters a node once, through its members' NICs.

    In an all-to-all the bytes are a process's own, and go through its own NIC.
    """
    members = len(sent.ranks)
    nodes = len({rank // shape.per_node for rank in sent.ranks})
    if members == 1:
        return 0.0
    rounds = 2 if sent.kind == "all-reduce" else 1
    inside = size * (members - 1) / members / machine.nvlink_gbs
    nics = 1 if sent.kind == "all-to-all" else members / nodes
    across = size * (1 - 1 / nodes) / (machine.network_gbs * nics)
    carried = rounds * max(inside if members > nodes else 0.0, across) / machine.links_achieved / 1e9
    waits = machine.microseconds_per_collective + machine.microseconds_per_hop * (nodes - 1) * rounds
    return carried + count * waits / 1e6


def compute_seconds(part: Part, cost: Cost, machine: Hardware) -> float:
    """Time of a part's operators: of their FLOPs, or of starting them where they are small.

    Clipping and optimizers are a few kernels on a GPU, which touch what the many here do.
    """
    if part.what in (CLIP, OPTIMIZER):
        return cost.moved / (machine.memory_tbs * 1e12)
    products = cost.flops["attention"] + cost.flops["linear"]
    return max(
        products / (machine.tflops * 1e12 * machine.compute_achieved),
        cost.operators * machine.microseconds_per_operator / 1e6,
    )


def times(parts: Mapping[Part, Cost], shape: Shape, machine: Hardware, copied: Mapping[Part, float] = {}) -> Times:
    """Of one iteration; `copied` are bytes that a part brings from or takes to the host.

    What a pass sends hides behind what it computes, but for the first block's weights, the last one's gradients, and tokens, for
    which attention waits.
    """
    compute = sending = overlapped = apart = 0.0
    for part, cost in parts.items():
        own = compute_seconds(part, cost, machine)
        taken = {key: seconds_of(key, count, size, shape, machine) for key, (count, size) in cost.sent.items()}
        waited = sum(seconds for key, seconds in taken.items() if key.tokens)
        sent = sum(taken.values()) - waited
        host = copied.get(part, 0.0) / (machine.host_gbs * machine.links_achieved * 1e9)
        edges = sum(
            seconds_of(key, 1, size / count, shape, machine)
            for key, (count, size) in cost.sent.items()
            if count and not key.tokens and (part.what == BACKWARD or key.kind == "all-gather")
        )
        compute += own
        sending += sent + waited
        overlapped += max(own, sent, host) + min(edges, own if sent < own else 0.0) + waited
        apart += own + sent + host + waited
    return Times(compute, sending, overlapped, apart)
