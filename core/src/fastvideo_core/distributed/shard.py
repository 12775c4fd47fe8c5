"""Sharding of roles over the run's processes with FSDP2, block by block as the family names them."""

from __future__ import annotations

import warnings

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from fastvideo_core.distributed import context
from fastvideo_core.roles import RoleManager


def shard_roles(bundle: RoleManager) -> None:
    """Shards every role's modules, frozen ones too; nothing to do with one process.

    Must come before optimizers are made: parameters become DTensors. Gradients are averaged over all processes.
    """
    if context.world_size() == 1:
        return
    # Said of every network whose output is a view; nothing here changes a network's output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(context.device().type, (context.world_size(),), mesh_dim_names=("shard",))
    for handle in bundle:
        for module in handle.modules.values():
            # A trained module must hold one requires_grad state while FSDP groups its parameters.
            module.requires_grad_(handle.trainable)
            for block in [m for m in module.modules() if isinstance(m, handle.block_classes)]:
                fully_shard(block, mesh=mesh)
            # The root too gives its gathered parameters back after a forward: a pass without a backward (a frozen
            # role, validation) would otherwise leave them in place of the sharded ones that the optimizer knows.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
