"""What is done to the blocks of a network before it is sharded: activation checkpointing and compiling."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle

_aten = torch.ops.aten
_KEPT = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_attention_math.default,
]
"""Operators whose results `ops` keeps: recomputing them costs most."""


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
    # A network's dropout, if it has any, must draw the same again.
    options: dict[str, Any] = {"preserve_rng_state": True}
    if kind == "ops":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _KEPT)
    for module in handle.modules.values():
        for index, (name, block) in enumerate(blocks_of(handle, module)):
            prepared = block
            if kind is not None and handle.trainable and (kind != "block_skip" or index % 2 == 0):
                prepared = checkpoint_wrapper(block, **options)
                parent, _, own = name.rpartition(".")
                setattr(module.get_submodule(parent), own, prepared)
            if training.enable_torch_compile:
                # with its wrapper: eager checkpointing around compiled code breaks where the second pass is another graph
                prepared.compile()
