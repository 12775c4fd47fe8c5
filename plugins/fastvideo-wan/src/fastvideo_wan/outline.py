"""A Wan role from its configuration files alone, as `check` estimates memory from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_wan.batches import data_free_shape, stored_latents
from fastvideo_wan.folder import COMPONENTS, open_folder
from fastvideo_wan.loading import meta_transformer
from fastvideo_wan.network import predict_velocity


def role_outline(
    cfg: RunConfig, role: str, *, rows: Sequence[Mapping[str, Any]], latents_source: LatentsSource | None
) -> RoleOutline:
    """The role's network on meta and one call of it, on the largest latents that the run can meet.

    Raises:
        ConfigError: the path holds no Wan 2.1 text-to-video pipeline, or the run says no size.
        DataError: the data's latents do not fit.
    """
    path, where = cfg.roles[role].path, f"roles.{role}.path"
    folder = open_folder(path, where=where)
    check_undamaged(path, COMPONENTS, where=where)
    bf16 = cfg.training.mixed_precision == "bf16"
    trainable = cfg.roles[role].trainable
    transformer = meta_transformer(path, dtype=torch.bfloat16 if bf16 and not trainable else torch.float32, where=where)
    shapes: list[Sequence[int]]
    if latents_source == "zeros":
        shapes = [data_free_shape(row, folder, cfg.training) for row in rows or ({},)]
    else:
        shapes = [stored_latents(row, folder, cfg.training).shape[1:] for row in rows]
        shapes = shapes or [data_free_shape({}, folder, cfg.training)]
    shape = max(shapes, key=math.prod)

    def evaluate(samples: int) -> Tensor:
        noisy, t = torch.empty(samples, *shape), torch.empty(samples)
        text = torch.empty(samples, folder.text_length, folder.text_dim)
        return predict_velocity(transformer, noisy, t, text, autocast=bf16)

    handle = RoleHandle(
        name=role,
        modules={TRANSFORMER: transformer},
        family=cfg.role_family(role),
        trainable=trainable,
        block_classes=(WanTransformerBlock,),
        bfloat16_classes=(nn.Linear,) if bf16 and trainable else (),
    )
    return RoleOutline(handle, evaluate)
