"""How the run's processes are arranged: one axis of shards, or replicas of groups that share shards (HSDP)."""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem


def mesh_shape(replicate: int | None, shard: int | None, world_size: int) -> tuple[int, int]:
    """(replicas, processes that share one replica's shards); what is None follows from the other and the world size.

    Raises:
        ConfigError: their product is not the number of processes.
    """
    if replicate is None:
        replicate = 1 if shard is None else world_size // shard
    if shard is None:
        shard = world_size // replicate
    if replicate * shard != world_size:
        found = f"hsdp_replicate_dim {replicate} x hsdp_shard_dim {shard} is not the number of processes, {world_size}"
        fix = "let their product be the number of processes, or leave one of them out"
        raise ConfigError(Problem(found, where="training", fix=fix))
    return replicate, shard


@dataclass(frozen=True)
class Mesh:
    """How a run's processes share samples and shards.

    Args:
        data_rank: whose samples this process trains on; processes with equal ones share each sample and draw alike.
        data_size: how many processes train on samples of their own.
    """

    data_rank: int
    data_size: int
    replicas: int | None = None
    shards: int | None = None

    @classmethod
    def of(cls, training: TrainingArgs | None) -> Mesh:
        """The mesh of the processes that run; None is one axis of shards."""
        dims = (training.hsdp_replicate_dim, training.hsdp_shard_dim) if training else (None, None)
        return cls(context.rank(), context.world_size(), *dims)

    def devices(self) -> DeviceMesh:
        """The mesh over all processes, (shard,) or, with replicas, (replicate, shard). Collective.

        Raises:
            ConfigError: see `mesh_shape`.
        """
        kind = context.device().type
        replicas, shards = mesh_shape(self.replicas, self.shards, context.world_size())
        if replicas == 1:
            return init_device_mesh(kind, (shards,), mesh_dim_names=("shard",))
        return init_device_mesh(kind, (replicas, shards), mesh_dim_names=("replicate", "shard"))
