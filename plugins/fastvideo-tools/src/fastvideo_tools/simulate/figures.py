"""Everything that is told of a simulated run, as plain numbers: seconds, bytes, FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastvideo_core.dispatch.memory_estimate import RunEstimate
from fastvideo_tools.simulate.hardware import Hardware
from fastvideo_tools.simulate.iterate import BACKWARD, FORWARD, WITH_GRAPH
from fastvideo_tools.simulate.meter import Cost, Part, Sent
from fastvideo_tools.simulate.simulation import Kind, Simulation
from fastvideo_tools.simulate.timing import Shape, Times, compute_seconds, seconds_of, shaped, times

USABLE = 0.9
"""The part of a GPU's memory that is for a run; the rest is for kernels, NCCL and the allocator's fragments."""
BASE = 8
"""GPUs that efficiency is relative to."""


@dataclass(frozen=True)
class Machines:
    """What a run would be on.

    Args:
        storage_gbs: of the storage that checkpoints and weights lie on, 10^9 bytes per second for all processes together.
    """

    hardware: Hardware
    per_node: int
    storage_gbs: float

    @property
    def memory(self) -> float:
        """Bytes of a GPU that a run may take."""
        return self.hardware.memory_gb * 1e9 * USABLE


def shape_on(found: Simulation, gpus: int, per_node: int) -> Shape:
    """The run's own way of sharding on so many GPUs: one replica, or as many shards of each as it has, as far as they go."""
    shards = gpus if found.replicas == 1 else min(found.shards, gpus)
    return Shape(gpus // shards, shards, per_node)


def mean_times(
    found: Simulation, shape: Shape, machines: Machines, estimate: RunEstimate | None = None, batch: float = 1.0
) -> Times:
    """Of the mean iteration, in a shape, with so many times the batch; `estimate` is that of what waits on the host then."""
    before, total = Shape(found.replicas, found.shards, shape.per_node), Times(0, 0, 0, 0)
    for kind, parts in found.mean():
        costs = {part: shaped(part, cost, before, shape, batch=batch) for part, cost in parts.items()}
        one = times(costs, shape, machines.hardware, copied(estimate or found.estimate, kind))
        total = total.plus(one, kind.share)
    return total


def copied(estimate: RunEstimate, kind: Kind) -> dict[Part, float]:
    """Bytes that each part of an iteration copies between the host's memory and the GPU: weights that wait there, activations."""
    result: dict[Part, float] = {}
    calls = {**dict.fromkeys(kind.parts, 0.0), **kind.drawn, **kind.calls}
    for part, count in calls.items():
        for name, role in estimate.roles.items():
            if name not in part.role.split("+"):
                continue
            on_host = 0 if role.evaluation is None else role.evaluation.on_host
            if part.what in (FORWARD, WITH_GRAPH):
                result[part] = count * (role.offloaded + (on_host if part.what == WITH_GRAPH else 0))
            elif part.what == BACKWARD:
                result[part] = result.get(part, 0.0) + calls.get(Part(name, WITH_GRAPH), 1) * (role.offloaded + on_host)
    return result


def figures(found: Simulation, machines: Machines) -> dict[str, Any]:
    """All figures of a run as it is, as plain data."""
    machine, training = machines.hardware, found.run.cfg.training
    shape = Shape(found.replicas, found.shards, machines.per_node)
    mean = mean_times(found, shape, machines)
    base = base_of(found)
    before = mean_times(found, shape_on(found, base, machines.per_node), machines)
    checkpoint, storage = found.estimate.checkpoint, machines.storage_gbs * 1e9
    read = sum(held.stored for held in found.roles.values()) * found.replicas
    copy, to_host = checkpoint / found.shards, machine.host_gbs * machine.links_achieved * 1e9
    host = (found.estimate.host + (copy if training.async_checkpointing else 0)) * min(machines.per_node, found.gpus)
    return {
        "gpus": found.gpus,
        "nodes": -(-found.gpus // machines.per_node),
        "replicas": found.replicas,
        "shards": found.shards,
        "sequence_parallel": training.sequence_parallel,
        "hardware": asdict(machine),
        "memory": {
            "peak": found.peak,
            "check": found.estimate.peak,
            "usable": machines.memory,
            "fits": found.peak <= machines.memory,
            "roles": {name: asdict(held) for name, held in found.roles.items()},
        },
        "iterations": [_iteration(kind, parts, shape, machines, found) for kind, parts in found.mean()],
        "mean": {
            **asdict(mean),
            "samples_per_second": found.samples / mean.overlapped,
            "samples_per_second_apart": found.samples / mean.apart,
        },
        "scaling": [_scaled(found, gpus, before, machines) for gpus in sizes(base, found.gpus)],
        "checkpoint": {"bytes": checkpoint, "write": checkpoint / storage, "copy": copy / to_host},
        "start": {"bytes": read, "read": read / storage},
        "host": host,
        "notes": list(found.notes),
    }


def sizes(base: int, gpus: int) -> list[int]:
    """From the base to the run's number of GPUs, doubling."""
    found = [base]
    while found[-1] * 2 < gpus:
        found.append(found[-1] * 2)
    return found if found[-1] == gpus else [*found, gpus]


def base_of(found: Simulation) -> int:
    """GPUs that efficiency is relative to: 8, or as many as share a sample where these are more."""
    return min(max(BASE, found.run.cfg.training.sequence_parallel), found.gpus)


def _scaled(found: Simulation, gpus: int, before: Times, machines: Machines) -> dict[str, Any]:
    shape = shape_on(found, gpus, machines.per_node)
    mean = mean_times(found, shape, machines)
    samples = found.samples * gpus / found.gpus
    return {
        "gpus": gpus,
        "replicas": shape.replicas,
        "shards": shape.shards,
        **asdict(mean),
        "samples_per_second": samples / mean.overlapped,
        "efficiency": before.overlapped / mean.overlapped,
        "efficiency_apart": before.apart / mean.apart,
    }


def _iteration(
    kind: Kind, parts: Mapping[Part, Cost], shape: Shape, machines: Machines, found: Simulation
) -> dict[str, Any]:
    host = copied(found.estimate, kind)
    return {
        "updates": list(kind.due),
        "share": kind.share,
        **asdict(times(parts, shape, machines.hardware, host)),
        "parts": [
            {
                "role": part.role,
                "what": part.what,
                "calls": kind.calls.get(part),
                "flops": dict(cost.flops),
                "operators": cost.operators,
                "moved": cost.moved,
                "compute": compute_seconds(part, cost, machines.hardware),
                "from_host": host.get(part, 0.0),
                "collectives": [_sent(key, entry, shape, machines.hardware) for key, entry in cost.sent.items()],
            }
            for part, cost in parts.items()
        ],
    }


def _sent(sent: Sent, entry: list[float], shape: Shape, machine: Hardware) -> dict[str, Any]:
    count, size = entry
    return {
        "kind": sent.name,
        "ranks": len(sent.ranks),
        "where": shape.place(sent.ranks),
        "count": count,
        "bytes": size,
        "seconds": seconds_of(sent, count, size, shape, machine),
    }
