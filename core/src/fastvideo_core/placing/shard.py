"""Activation checkpointing, compiling and sharding (FSDP2) of roles, block by block as the family names them."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn
from typing_extensions import Self

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle, RoleManager, is_lora_parameter
from fastvideo_core.distributed import context
from fastvideo_core.distributed.context import EstimatedGroup, mesh_shape

_HALF = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
_ATTENTION = ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu", "attention_math")
_NAMES = ("mm", "addmm", "bmm", "baddbmm", *(f"_scaled_dot_product_{kind}" for kind in _ATTENTION))
_KEPT = [getattr(torch.ops.aten, name).default for name in _NAMES]
"""Operators whose results `ops` keeps: recomputing them costs most."""


def shard_roles(bundle: RoleManager, training: TrainingArgs) -> None:
    """Prepares every role's blocks and shards its modules, frozen ones too; with one process those alone that are offloaded.

    Must come before optimizers are made: parameters become DTensors. Gradients are averaged over all processes.
    """
    for handle in bundle:
        # A trained module must hold its requires_grad state while FSDP groups its parameters.
        handle.set_trainable()
    owners = [handle for handle in bundle if not handle.borrows]
    for handle in owners:
        prepare_blocks(handle, training)
    if training.sequence_parallel > 1:
        # After checkpoint wrappers, so that the input that is kept to recompute the first block is a share too.
        size = training.sequence_parallel
        group = dist.new_subgroups(size, group_desc="tokens")[0]  # type: ignore[no-untyped-call]  # of neighbours: `Mesh`
        split_tokens(owners, group)
    sharded = [(h, n) for h in owners for n in h.modules if context.world_size() > 1 or on_host(h, n, training)]
    if not sharded:
        return
    if not dist.is_initialized():
        # of this process alone; "attr-defined": torch does not list the store among its public names
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    # Said of every network whose output is a view; nothing here changes a network's output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    replicas, shards = mesh_shape(training, context.world_size())
    axes = {"shard": shards} if replicas == 1 else {"replicate": replicas, "shard": shards}
    mesh = init_device_mesh(context.device().type, tuple(axes.values()), mesh_dim_names=tuple(axes))
    for handle, name in sharded:
        _shard(handle, name, mesh, training)


def set_gradient_sync(bundle: RoleManager, enabled: bool) -> None:
    """Whether the coming backward passes reduce gradients over the processes, or only add to this process's whole ones."""
    for handle in bundle:
        for module in handle.modules.values():
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(enabled)


def on_host(handle: RoleHandle, name: str, training: TrainingArgs) -> set[nn.Parameter]:
    """What stays in host memory of the role's network of that name, adapters left out: all of it, or its last blocks."""
    parts, n = list[nn.Module](), training.offload_blocks
    changes = not handle.borrows and (handle.may_train(name) if handle.trainable else handle.is_saved)
    if training.frozen_cpu_offload and not changes:
        parts = [handle.modules[name]]
    elif n and (handle.lora is not None or not changes):
        parts = [block for _, block in blocks_of(handle, handle.modules[name])][-n:]
    return {p for part in parts for key, p in part.named_parameters() if not is_lora_parameter(key)}


def gathers_in_bfloat16(handle: RoleHandle, training: TrainingArgs) -> bool:
    """Whether what a role's blocks compute in bfloat16 is gathered in it; else as it is stored."""
    # Groups of their own inside a block have hooks, which torch.compile cannot have in a graph; with activation
    # checkpointing it would leave the whole block uncompiled.
    return bool(handle.bfloat16_classes) and not training.enable_torch_compile


def split_tokens(handles: Sequence[RoleHandle], group: dist.ProcessGroup | EstimatedGroup) -> None:
    """Makes the processes of a group share the tokens of all calls of networks that can."""
    for handle in handles:
        if handle.split_tokens is not None:
            for module in handle.modules.values():
                handle.split_tokens(module, group)


def _shard(handle: RoleHandle, network: str, mesh: DeviceMesh, training: TrainingArgs) -> None:
    module, host, alone = handle.modules[network], on_host(handle, network, training), context.world_size() == 1
    stays = {p for p in module.parameters() if p not in host} if alone else set()
    kept: dict[str, Any] = {"mesh": mesh, "ignored_params": stays}
    brought = {**kept, "offload_policy": CPUOffloadPolicy(pin_memory=context.device().type == "cuda")}
    halved = gathers_in_bfloat16(handle, training)
    in_order: list[Any] = [module]
    for name, block in blocks_of(handle, module):
        waits = not host.isdisjoint(block.parameters())
        if waits and not alone:
            _shard_adapters(block, {**kept, "mp_policy": _HALF} if halved else kept)
        elif halved and not alone:
            # In groups of their own. Autocast rounds these weights anyway, so that no result changes; the sharded ones
            # that the optimizer sees stay float32.
            inner = list(block.modules())[1:]
            if parts := [part for part in inner if isinstance(part, handle.bfloat16_classes)]:
                fully_shard(parts, mp_policy=_HALF, **kept)
        # a checkpoint wrapper is sharded itself, so that gathering happens outside of what is recomputed
        whole = module.get_submodule(name.removesuffix("._checkpoint_wrapped_module"))
        if waits or not alone:
            fully_shard(whole, **(brought if waits else kept))
        if waits:
            in_order.append(whole)
    # The root too gives its gathered parameters back after a forward: a pass without a backward (a frozen
    # role, validation) would otherwise leave them in place of the sharded ones that the optimizer knows.
    waits = not host.isdisjoint(module.parameters())
    if waits and not alone:
        _shard_adapters(module, kept)
    fully_shard(module, reshard_after_forward=True, **(brought if waits else kept))
    for one, following in pairwise(in_order):
        one.set_modules_to_forward_prefetch([following])  # copied while this one computes


def _shard_adapters(module: nn.Module, options: dict[str, Any]) -> None:
    """In groups by role, whose adapters are called all or none: what is below them waits elsewhere."""
    found: dict[str, list[nn.Module]] = defaultdict(list)
    for key, part in module.named_modules():
        if isinstance(part, nn.Linear) and is_lora_parameter(f"{key}.weight") and not isinstance(part, FSDPModule):
            found[key.rpartition(".")[2]].append(part)
    for adapters in found.values():
        fully_shard(adapters, **options)


def blocks_of(handle: RoleHandle, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost blocks of a network by name, inside their checkpoint wrappers where they have some."""
    found: list[tuple[str, nn.Module]] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(part, handle.block_classes) and not inside:
            found.append((name, part))
    return found


def prepare_blocks(handle: RoleHandle, training: TrainingArgs, keep: Callable[[], Any] | None = None) -> None:
    """Checkpoints a trained role's blocks, `keep` being save_on_cpu, and compiles every role's, as `training` asks for."""
    kind = training.enable_gradient_checkpointing_type
    trains = handle.trainable or handle.base is not None
    on_cpu = keep or partial(save_on_cpu, pin_memory=context.device().type == "cuda")
    keeping = on_cpu if training.offload_activations else nullcontext
    options: dict[str, Any] = {"checkpoint_fn": partial(_checkpoint, handle.bindings, keeping, use_reentrant=False)}
    if kind == "ops":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _KEPT)
    for module in handle.modules.values():
        for index, (name, block) in enumerate(blocks_of(handle, module)):
            prepared = block
            if kind is not None and trains and (kind != "block_skip" or index % 2 == 0):
                prepared = checkpoint_wrapper(block, **options)
                module.set_submodule(name, prepared)
            if training.enable_torch_compile:
                # with its wrapper: eager checkpointing around compiled code breaks where the second pass is another graph
                prepared.compile()


def _checkpoint(bindings: Sequence[Any], keep: Callable[[], Any], block: nn.Module, *args: Any, **options: Any) -> Any:
    """Calls a block, to be recomputed inside what it is bound to now.

    A compiled graph recomputes what it was traced of, whatever holds then, and takes no contexts but torch's own.
    """
    if not torch.compiler.is_compiling():
        options["context_fn"] = partial(_contexts, bindings, options.get("context_fn", noop_context_fn))
    with keep():
        return checkpoint(block, *args, **options)


def _contexts(bindings: Sequence[Callable[[], Any]], inner: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    first, again = (_Kept(mode) if isinstance(mode, TorchDispatchMode) else mode for mode in inner())
    return first, _Entered([*(binding() for binding in bindings), lambda: again])


class _Kept(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows torch's mode the operators that `ops` keeps alone: it counts all, and FSDP's hooks call others when recomputed."""

    def __init__(self, mode: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kept = func in _KEPT
        return self._mode.__torch_dispatch__(func, types, args, kwargs) if kept else func(*args, **kwargs or {})


class _Entered(ExitStack):
    """Contexts that are made and entered anew each time: a second backward recomputes a second time."""

    def __init__(self, contexts: Sequence[Callable[[], AbstractContextManager[Any]]]) -> None:
        super().__init__()
        self._contexts = contexts

    def __enter__(self) -> Self:
        for make in self._contexts:
            self.enter_context(make())
        return self
