"""Rank, world size and device of this process, one of which is rank 0 of 1; and how processes share shards and samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, FastVideoError, Problem

_T = TypeVar("_T")


def rank() -> int:
    """This process's global rank."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes take part in the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """True on the one process that writes files and talks to the console."""
    return rank() == 0


def device() -> torch.device:
    """The CUDA device of this process's local rank, or the only one that its launcher shows it; the CPU without CUDA.

    Raises ConfigError where the machine has fewer devices than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank < visible:
        return torch.device("cuda", local_rank)
    # torch's launcher (torchrun's, accelerate's and ours) shows all its processes the same devices; Slurm may bind each to one.
    if visible == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return torch.device("cuda", 0)
    gpus = f"{visible} GPU{'s are' if visible > 1 else ' is'} visible"
    found = f"this is process {local_rank} of its machine (LOCAL_RANK, from 0), and {gpus}"
    fix = "start fewer processes (num_gpus, --nproc-per-node, --ntasks-per-node), or look at CUDA_VISIBLE_DEVICES"
    raise ConfigError(Problem(found, "environment", "at most one process per visible GPU", fix))


def from_main(value: _T) -> _T:
    """What the main process has, on every process; it must be picklable. Collective."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, device=device())
    return box[0]


def told_by_main(look: Callable[[], _T]) -> _T:
    """What `look`, which the main process alone calls, gives; a FastVideoError of it is raised on all. Collective."""
    found, error = None, None
    if is_main_process():
        try:
            found = look()
        except FastVideoError as raised:
            error = raised
    found, error = from_main((found, error))
    if error is not None:
        raise error
    return cast(_T, found)


def gathered(value: _T, group: dist.ProcessGroup | None = None) -> list[_T]:
    """What each process has, by rank, on every one; it must be picklable. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=group)
    return values


def barrier() -> None:
    """Waits until every process is here; nothing to wait for with one."""
    if world_size() > 1:
        dist.barrier()


def mesh_shape(training: TrainingArgs, processes: int) -> tuple[int, int]:
    """(replicas, processes that share one replica's shards), as `training` says it or leaves it open; config/check.py checks."""
    replicas = training.hsdp_replicate_dim or processes // (training.hsdp_shard_dim or processes)
    return replicas, processes // replicas


@dataclass(frozen=True)
class EstimatedGroup:
    """Stands for the process group that `RoleHandle.split_tokens` gets, where tensors have no values: nothing is sent."""

    processes: int

    def size(self) -> int:
        """How many processes it has."""
        return self.processes

    def rank(self) -> int:
        """Which of them this one is."""
        return 0


@dataclass(frozen=True)
class Mesh:
    """How a run's processes share samples.

    Processes of equal `data_rank` share each sample that they train on and draw alike; `data_size` is how many ranks there are.
    """

    data_rank: int
    data_size: int

    @classmethod
    def current(cls, training: TrainingArgs) -> Mesh:
        """The mesh of the processes that run: each `sequence_parallel` neighbours share their samples."""
        return cls(rank() // training.sequence_parallel, world_size() // training.sequence_parallel)
