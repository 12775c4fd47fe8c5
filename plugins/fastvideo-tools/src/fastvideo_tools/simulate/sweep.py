"""The same run in other shapes, batches and with parts in the host's memory: which are fastest of those that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastvideo_core.dispatch.memory_estimate import RunEstimate, estimate_run
from fastvideo_tools.simulate.figures import Machines, efficiency, mean_times
from fastvideo_tools.simulate.simulation import Simulation
from fastvideo_tools.simulate.timing import Shape

BEST = 3


@dataclass(frozen=True)
class Choice:
    """A way to run: what of run.yaml's `training` it sets, and what comes of it; `peak` is what `check` estimates."""

    changes: Mapping[str, Any]
    peak: int
    fits: bool
    seconds: float
    samples_per_second: float
    efficiency: float


def sweep(found: Simulation, machines: Machines, said: Callable[[str], None] = lambda text: None) -> list[Choice]:
    """All choices, those that fit first, the fastest of them first."""
    choices = []
    for batch, away in _variants(found):
        training = found.run.cfg.training.model_copy(update={"train_batch_size": batch, **away})
        known: dict[str, Any] = {}
        words = ", ".join([f"batch {batch}", *away])
        said(f"{words}: memory is estimated")
        for shape in shapes(found.gpus, machines.per_node):
            axes = {"hsdp_shard_dim": shape.shards, "hsdp_replicate_dim": shape.replicas}
            cfg = replace(found.run.cfg, training=training.model_copy(update=axes))
            estimate = estimate_run(replace(found.run, cfg=cfg), known)
            if estimate is None:
                continue
            known = {name: role.evaluation for name, role in estimate.roles.items()}
            choices.append(_choice(found, machines, shape, estimate, batch, {**axes, **away}))
    return sorted(choices, key=lambda choice: (not choice.fits, -choice.samples_per_second))


def shapes(gpus: int, per_node: int) -> Iterator[Shape]:
    """Shards inside a node, over some nodes, over all."""
    shards = min(per_node, gpus)
    while shards < gpus:
        if gpus % shards == 0:
            yield Shape(gpus // shards, shards, per_node)
        shards *= 2
    yield Shape(1, gpus, per_node)


def _variants(found: Simulation) -> Iterator[tuple[int, dict[str, Any]]]:
    training = found.run.cfg.training
    options: list[dict[str, Any]] = [{}]
    recomputes = training.enable_gradient_checkpointing_type is not None
    if recomputes and not training.offload_activations and not training.enable_torch_compile:
        options.append({"offload_activations": True})
    if not training.frozen_cpu_offload and any(not role.trainable for role in found.run.cfg.roles.values()):
        options.append({"frozen_cpu_offload": True})
    for batch in (training.train_batch_size, 2 * training.train_batch_size):
        for away in options:
            yield batch, away


def _choice(
    found: Simulation, machines: Machines, shape: Shape, estimate: RunEstimate, batch: int, changes: dict[str, Any]
) -> Choice:
    times_batch = batch / found.run.cfg.training.train_batch_size
    mean = mean_times(found, shape, machines, estimate, times_batch)
    return Choice(
        {"train_batch_size": batch, **changes},
        estimate.peak,
        estimate.peak <= machines.memory,
        mean.overlapped,
        found.samples * times_batch / mean.overlapped,
        efficiency(found, shape, mean, machines, times_batch),
    )
