"""How the run's processes are arranged: one axis of shards, or replicas of groups that share shards (HSDP)."""

from __future__ import annotations

from dataclasses import dataclass

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed import context


def mesh_shape(training: TrainingArgs, processes: int) -> tuple[int, int]:
    """(replicas, processes that share one replica's shards), as `training` says it or leaves it open; config/check.py checks."""
    replicas = training.hsdp_replicate_dim or processes // (training.hsdp_shard_dim or processes)
    return replicas, processes // replicas


@dataclass(frozen=True)
class Mesh:
    """How a run's processes share samples.

    Processes of equal `data_rank` share each sample that they train on and draw alike; `data_size` is how many ranks there are.
    """

    data_rank: int
    data_size: int

    @classmethod
    def current(cls) -> Mesh:
        """The mesh of the processes that run."""
        return cls(context.rank(), context.world_size())
