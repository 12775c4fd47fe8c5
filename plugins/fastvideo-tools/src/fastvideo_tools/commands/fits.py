"""`fastvideo-distill fits RUN --gpu-memory GIB`, which is `check --gpu-memory`: whether a run fits, and what would make it."""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastvideo_core import LoraConfig, RoleConfig, RunConfig
from fastvideo_core.cli.options import add_run, finite, overrides
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # torch is imported when a run is looked at, not to show help
    from fastvideo_core.dispatch.examine import Run
    from fastvideo_core.dispatch.memory_estimate import RunEstimate

GIB = 2**30
LEFT_OVER = 0.1
"""The part of a GPU's memory that is left to kernels, NCCL and the allocator's fragments."""
MOST_BLOCKS = 256
MOST_GPUS = 8
LOW_RANK = 16

Step = Callable[["RunConfig"], Iterator["RunConfig"]]
"""Gives a run with one change, or with that in degrees; nothing where the run has it, or cannot."""


class UnknownSizesError(Exception):
    """A family of the run does not say what its networks take."""


@dataclass(frozen=True)
class Plan:
    """Changes that make a run fit, in words, with its peak on the GPU and what waits on the host, in bytes."""

    changes: tuple[str, ...]
    peak: int
    host: int


@dataclass
class Search:
    """Estimates a run with changes; what its evaluations hold is found out once for all estimates that have it in common."""

    run: Run
    evaluations: dict[str, Any] = field(default_factory=dict)

    def estimate(self, cfg: RunConfig) -> RunEstimate:
        from fastvideo_core.dispatch.memory_estimate import estimate_run

        alike = cfg.training.model_copy(update={"num_gpus": 1, "offload_blocks": 0, "optimizer": "adamw"})
        known = self.evaluations.setdefault(f"{alike}{dict(cfg.roles)}", {})
        found = estimate_run(replace(self.run, cfg=cfg), known)
        if found is None or not found.knows_activations:
            raise UnknownSizesError
        known.update({name: role.evaluation for name, role in found.roles.items()})
        return found

    def plan(self, memory: float) -> Plan | None:
        """The first changes, the smallest first, with which the peak is at most so many bytes; on more GPUs if need be."""
        start = self.run.cfg
        gpus = start.training.num_gpus
        while gpus <= max(MOST_GPUS, start.training.num_gpus):
            found = self._changed(_training(start, num_gpus=gpus), memory)
            if (estimate := self.estimate(found)).peak <= memory:
                return Plan(tuple(differences(start, found)), estimate.peak, estimate.host)
            gpus *= 2
        return None

    def _changed(self, cfg: RunConfig, memory: float) -> RunConfig:
        """With changes until it fits, or with all that save a hundredth or more."""
        peak = self.estimate(cfg).peak
        for step in (*EXACT, *OTHERS, adapters, *EXACT):
            for changed in step(cfg) if peak > memory else ():
                if peak > memory and (lower := self.estimate(changed).peak) < 0.99 * peak:
                    cfg, peak = changed, lower
        return self._fewer_blocks(cfg, memory)

    def _fewer_blocks(self, cfg: RunConfig, memory: float) -> RunConfig:
        """As few blocks on the host as fit, or all."""
        if cfg.training.offload_blocks != MOST_BLOCKS:
            return cfg
        wanted = max(self.estimate(cfg).peak, int(memory))
        counts = range(1, MOST_BLOCKS)
        least = bisect_left(
            counts, True, key=lambda count: self.estimate(_training(cfg, offload_blocks=count)).peak <= wanted
        )
        return _training(cfg, offload_blocks=counts[least])


def recomputed(cfg: RunConfig) -> Iterator[RunConfig]:
    if cfg.training.enable_gradient_checkpointing_type != "full":
        yield _training(cfg, enable_gradient_checkpointing_type="full")


def one_base(cfg: RunConfig) -> Iterator[RunConfig]:
    """Adapters on the networks of a frozen role that rests on the same weights."""

    def weights(role: RoleConfig) -> tuple[Any, ...]:
        return role.path, role.family, role.checkpoint_role, role.weights, role.merge_lora

    owners = {weights(role): name for name, role in cfg.roles.items() if not role.trainable}
    apart = {name: role for name, role in cfg.roles.items() if role.lora is not None and role.share is None}
    found = {name: {"share": owners[weights(role)]} for name, role in apart.items() if weights(role) in owners}
    if found and not (cfg.training.offload_blocks and _compiles_shards(cfg)):
        yield cfg.with_roles(found)


def _compiles_shards(cfg: RunConfig) -> bool:
    """Whether offloaded blocks of a shared base would be refused."""
    return cfg.training.enable_torch_compile and cfg.training.num_gpus > 1


def inputs_away(cfg: RunConfig) -> Iterator[RunConfig]:
    if cfg.training.enable_gradient_checkpointing_type is not None and not cfg.training.enable_torch_compile:
        yield _training(cfg, offload_activations=True)


def blocks_away(cfg: RunConfig) -> Iterator[RunConfig]:
    if not cfg.training.offload_blocks and not _compiles_shards(cfg):
        yield _training(cfg, offload_blocks=MOST_BLOCKS)


def bytes_of_moments(cfg: RunConfig) -> Iterator[RunConfig]:
    if cfg.training.num_gpus == 1 and cfg.training.optimizer == "adamw":
        yield _training(cfg, optimizer="adamw8bit")


def smaller_bases(cfg: RunConfig) -> Iterator[RunConfig]:
    """Frozen weights of a byte, then of half a byte, which do not shard."""
    for precision in ("fp8", "nf4") if cfg.training.num_gpus == 1 else ("fp8",):
        frozen = [name for name, role in cfg.roles.items() if role.lora is not None or not role.trainable]
        if frozen and "base_precision" in RoleConfig.model_fields:
            yield cfg.with_roles({name: {"base_precision": precision} for name in frozen})


def lower_rank(cfg: RunConfig) -> Iterator[RunConfig]:
    found = {name: role.lora for name, role in cfg.roles.items() if role.lora is not None and role.lora.rank > LOW_RANK}
    if found:
        low = {name: {"lora": lora.model_copy(update={"rank": LOW_RANK})} for name, lora in found.items()}
        yield cfg.with_roles(low)


def adapters(cfg: RunConfig) -> Iterator[RunConfig]:
    whole = [name for name, role in cfg.roles.items() if role.trainable and role.lora is None]
    if whole:
        yield cfg.with_roles({name: {"lora": LoraConfig(rank=64)} for name in whole})


EXACT: tuple[Step, ...] = (recomputed, one_base, inputs_away, blocks_away)
"""Changes that leave results as they are, the quickest first."""
OTHERS: tuple[Step, ...] = (bytes_of_moments, smaller_bases, lower_rank)
"""Changes that do not, the smallest first."""


def differences(start: RunConfig, end: RunConfig) -> Iterator[str]:
    """What to write into run.yaml, a key each."""
    for before, after, place in [
        (start.training, end.training, "training"),
        *((start.roles[name], role, f"roles.{name}") for name, role in end.roles.items()),
    ]:
        for key in type(after).model_fields:
            if (value := getattr(after, key)) != getattr(before, key):
                shown = f"{{rank: {value.rank}}}" if key == "lora" else str(value).lower() if value is True else value
                yield f"{place}.{key}: {shown}"


def _training(cfg: RunConfig, **values: Any) -> RunConfig:
    return replace(cfg, training=cfg.training.model_copy(update=values))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, "as with train")
    parser.add_argument("--gpu-memory", metavar="GIB", type=finite, required=True, help="of each GPU, in GiB")


def run(args: argparse.Namespace) -> int:
    from fastvideo_core.dispatch.examine import examine
    from fastvideo_core.dispatch.load_run_config import load_run_config

    if args.gpu_memory <= 0:
        raise ConfigError(Problem(f"found {args.gpu_memory:g}", "--gpu-memory", "a number of GiB above 0"))
    cfg = load_run_config(args.config, args.registry, overrides(args))
    search = Search(examine(cfg, args.registry, starts=False)[0])
    memory = args.gpu_memory * GIB * (1 - LEFT_OVER)
    of_it = f"of {args.gpu_memory:g} GiB, of which {memory / GIB:.1f} are for it"
    try:
        peak = search.estimate(cfg).peak
    except UnknownSizesError:
        say(f"a GPU {of_it}: a family of the run does not say what its networks take")
        return 0
    if peak <= memory:
        say(f"it fits a GPU {of_it}: {peak / GIB:.2f} GiB at its peak")
        return 0
    say(f"it does not fit a GPU {of_it}: {peak / GIB:.2f} GiB at its peak")
    if (plan := search.plan(memory)) is None:
        say(f"  nor on {MOST_GPUS} GPUs with all that saves memory: take fewer frames or a smaller size")
        return 0
    host = f", and {plan.host / GIB:.2f} GiB of the host" if plan.host else ""
    say(f"  with these changes it takes {plan.peak / GIB:.2f} GiB{host}:")
    for words in plan.changes:
        say(f"    {words}")
    return 0


COMMAND = Command(add_arguments, run)
