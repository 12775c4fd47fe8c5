"""From networks on the meta device to networks with weights: every rank reads no more than its own shards."""

from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.contracts.roles import RoleHandle, WeightSource, is_lora_parameter
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, ContractError, Problem, listed
from fastvideo_core.weights.parameters import base_name, clean_name, local_part, own_slice


def materialise(handle: RoleHandle, on_host: AbstractSet[nn.Parameter] = frozenset()) -> None:
    """Gives the handle's networks memory on their device and reads their weights from `handle.weights`, if it has some.

    To be called once, after sharding. Adapters get memory only; see `initialise_lora`. `on_host` are the parameters that lie in
    host memory, as those that sharding offloads do. Raises ContractError where a non-persistent buffer is on
    meta, and what `fill` raises.
    """
    source = handle.weights
    if source is None:
        return
    for name, module in handle.modules.items():
        stored = set(map(clean_name, module.state_dict()))
        unknown = [key for key, buffer in module.named_buffers() if buffer.is_meta and clean_name(key) not in stored]
        if unknown:
            found = f"the non-persistent buffers {listed(unknown)} of '{name}' are on meta: no file holds their values"
            where, fix = f"family '{handle.family}', role '{handle.name}'", "compute them while the network is built"
            raise ContractError(Problem(found, where, fix=fix))
        _allocate(module, on_host)
        fill(handle, name, module, source)
    handle.weights = None


def _allocate(module: nn.Module, on_host: AbstractSet[Tensor]) -> None:
    """Uninitialised memory for what is on meta, where the network computes or on the host; buffers that hold values keep them."""
    buffers = {
        (part, name): buffer
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False)
    }
    computes = context.device()
    move: Any = module._apply  # untyped
    move(lambda one: torch.empty_like(one, device="cpu" if one in on_host else computes))
    for (part, name), buffer in buffers.items():
        part._buffers[name] = torch.empty_like(buffer, device=computes) if buffer.is_meta else buffer.to(computes)


def fill(handle: RoleHandle, name: str, module: nn.Module, source: WeightSource) -> None:
    """Reads a module's parameters and persistent buffers, adapters left out, tensor by tensor.

    Raises CheckpointError where the source lacks a tensor, has others, or one of another shape.
    """
    named = module.state_dict(keep_vars=True).items()
    stored = {clean_name(fqn): tensor for fqn, tensor in named if not is_lora_parameter(fqn)}
    first = {id(tensor): fqn for fqn, tensor in reversed(stored.items())}  # tied tensors have several names
    own = {fqn: tensor for fqn, tensor in stored.items() if first[id(tensor)] == fqn}
    available = set(source.tensor_names(name))
    where = f"role '{handle.name}', module '{name}'"
    missing = [fqn for fqn in own if base_name(fqn) not in available]
    extra = available - set(map(base_name, stored))
    problems = [
        Problem(f"{len(names)} {kind} tensors: {listed(sorted(names))}", where, fix="take weights of this network")
        for kind, names in (("missing", missing), ("unexpected", list(extra)))
        if names
    ]
    if problems:
        raise CheckpointError(problems)
    for fqn, tensor in own.items():
        values, own_part = source.read(name, base_name(fqn), own_slice(tensor)), local_part(tensor.detach())
        if values.shape != own_part.shape:
            found = f"'{fqn}' does not have the shape {list(tensor.shape)} of the network"
            raise CheckpointError(Problem(found, where, fix="take weights of this network"))
        own_part.copy_(values)
