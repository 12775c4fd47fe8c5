"""What is done to the blocks of a network before it is sharded: activation checkpointing and compiling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle

_KEPT = {
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
}
"""Operators of aten whose results `ops` keeps: recomputing them costs most."""


def blocks_of(handle: RoleHandle, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost blocks of a network by name, inside their checkpoint wrappers where they have some."""
    found: list[tuple[str, nn.Module]] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(part, handle.block_classes) and not inside:
            found.append((name, part))
    return found


def prepare_blocks(handle: RoleHandle, training: TrainingArgs) -> None:
    """Checkpoints the activations of a trained role's blocks and compiles every role's, as `training` asks for."""
    kind = training.enable_gradient_checkpointing_type
    for module in handle.modules.values():
        for index, (name, block) in enumerate(blocks_of(handle, module)):
            prepared = block
            if kind is not None and handle.trainable and (kind != "block_skip" or index % 2 == 0):
                prepared = checkpoint_wrapper(block, **_options(kind))
                _replace(module, name, prepared)
            if training.enable_torch_compile:
                # with its wrapper: eager checkpointing around compiled code breaks where the second pass is another graph
                prepared.compile()


def _options(kind: str) -> dict[str, Any]:
    # A network's dropout, if it has any, must draw the same again.
    options: dict[str, Any] = {"preserve_rng_state": True}
    if kind == "ops":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy())
    return options


def _policy() -> Callable[..., CheckpointPolicy]:
    def policy(ctx: Any, func: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        name = func._schema.name.removeprefix("aten::") if isinstance(func, torch._ops.OpOverload) else ""
        return CheckpointPolicy.MUST_SAVE if name in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def _replace(module: nn.Module, name: str, wrapped: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, wrapped)
