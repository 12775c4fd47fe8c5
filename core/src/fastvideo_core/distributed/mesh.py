"""How the run's processes are arranged: one axis of shards, or replicas of groups that share shards (HSDP)."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem


def mesh_shape(replicate: int | None, shard: int | None, world_size: int) -> tuple[int, int]:
    """(replicas, processes that share one replica's shards); what is None follows from the other and the world size.

    Raises:
        ConfigError: their product is not the number of processes.
    """
    if shard is None:
        replicate = 1 if replicate is None else replicate
        shard = world_size // replicate
    elif replicate is None:
        replicate = world_size // shard
    if replicate * shard != world_size:
        found = f"hsdp_replicate_dim {replicate} x hsdp_shard_dim {shard} is not the number of processes, {world_size}"
        fix = "let their product be the number of processes, or leave one of them out"
        raise ConfigError(Problem(found, where="training", fix=fix))
    return replicate, shard


def data_mesh(training: TrainingArgs | None) -> DeviceMesh:
    """The mesh over all processes: (shard,) or, with replicas, (replicate, shard). Gradients are averaged over all."""
    size = context.world_size()
    replicas, shards = mesh_shape(
        training.hsdp_replicate_dim if training else None, training.hsdp_shard_dim if training else None, size
    )
    kind = context.device().type
    if replicas == 1:
        return init_device_mesh(kind, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (replicas, shards), mesh_dim_names=("replicate", "shard"))
