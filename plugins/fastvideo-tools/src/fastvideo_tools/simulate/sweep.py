"""The same run in other shapes, batches and with parts in the host's memory: which are fastest of those that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastvideo_core.dispatch.memory_estimate import RunEstimate, estimate_run
from fastvideo_tools.simulate.figures import Machines, base_of, mean_times, shape_on
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


def sweep(
    found: Simulation,
    machines: Machines,
    others: Iterable[Simulation] = (),
    said: Callable[[str], None] = lambda text: None,
) -> list[Choice]:
    """All choices, those that fit first, the fastest of them first; `others` are the run at other `sequence_parallel`.

    Efficiency is relative to the run's own way on few GPUs. The others are tried in all shapes, else as they are.
    """
    base = mean_times(found, shape_on(found, base_of(found), machines.per_node), machines)
    before = found.samples / base.overlapped
    choices = [_choice(found, machines, *way, before) for way in _ways(found, machines, list(_variants(found)), said)]
    for other in others:
        kept = [(other.run.cfg.training.train_batch_size, dict[str, Any]())]
        choices += [_choice(other, machines, *way, before) for way in _ways(other, machines, kept, said)]
    return sorted(choices, key=lambda choice: (not choice.fits, -choice.samples_per_second))


def _ways(
    found: Simulation, machines: Machines, variants: Iterable[tuple[int, dict[str, Any]]], said: Callable[[str], None]
) -> Iterator[tuple[Shape, RunEstimate, int, dict[str, Any]]]:
    """The variants in every shape, with what `check` estimates of them."""
    together = found.run.cfg.training.sequence_parallel
    for batch, away in variants:
        training = found.run.cfg.training.model_copy(update={"train_batch_size": batch, **away})
        same = training == found.run.cfg.training
        known = {name: role.evaluation for name, role in found.estimate.roles.items()} if same else {}
        said(f"{', '.join([f'sequence_parallel {together}, batch {batch}', *away])}: memory is estimated")
        for shape in shapes(found.gpus, machines.per_node):
            axes = {"hsdp_shard_dim": shape.shards, "hsdp_replicate_dim": shape.replicas}
            cfg = replace(found.run.cfg, training=training.model_copy(update=axes))
            estimate = estimate_run(replace(found.run, cfg=cfg), known)
            if estimate is None:
                continue
            known = {name: role.evaluation for name, role in estimate.roles.items()}
            yield shape, estimate, batch, {"sequence_parallel": together, **axes, **away}


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
    found: Simulation,
    machines: Machines,
    shape: Shape,
    estimate: RunEstimate,
    batch: int,
    changes: dict[str, Any],
    before: float,
) -> Choice:
    times_batch = batch / found.run.cfg.training.train_batch_size
    mean = mean_times(found, shape, machines, estimate, times_batch)
    rate = found.samples * times_batch / mean.overlapped
    return Choice(
        {"train_batch_size": batch, **changes},
        estimate.peak,
        estimate.peak <= machines.memory,
        mean.overlapped,
        rate,
        rate / before,
    )
