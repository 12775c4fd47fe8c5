"""An LTX role from its configuration files alone, as `check` estimates memory from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.run import section


def outline_role(path: str) -> dict[str, nn.Module]:
    """A role's networks on the meta device, by module name.

    Raises:
        ConfigError: the path holds no complete LTX pipeline, or a damaged one.
    """
    generation = _open(path, "path").generation
    return {TRANSFORMER: generation.outline(path)}


def role_outline(
    cfg: RunConfig, role: str, *, rows: Sequence[Mapping[str, Any]], latents_source: LatentsSource | None
) -> RoleOutline:
    """The role's network on meta and one call of it, on the most tokens that the run can meet.

    Raises:
        ConfigError: the path holds no LTX pipeline, or the run says no size.
        DataError: the data's latents do not fit.
    """
    path, where = cfg.roles[role].path, f"roles.{role}.path"
    folder = _open(path, where)
    generation, config = folder.generation, section(cfg)
    bf16 = cfg.training.mixed_precision == "bf16"
    trainable = cfg.roles[role].trainable
    dtype = torch.bfloat16 if bf16 and not trainable else torch.float32
    transformer = generation.meta_transformer(path, dtype=dtype, where=where)
    stored = latents_source != "zeros" and bool(rows)
    layouts = [generation.layout(row, folder, config, cfg.training, stored=stored) for row in rows or ({},)]
    layout = max(layouts, key=lambda one: one.total)

    def evaluate(samples: int) -> Tensor:
        noisy = torch.empty(samples, layout.total, folder.channels)
        # A given first frame has a timestep of its own, so that every token has one.
        t = torch.empty(noisy.shape[:2] if config.first_frame_probability > 0 else samples)
        return generation.evaluate(transformer, noisy, t, folder, layout, autocast=bf16)

    handle = RoleHandle(
        name=role,
        modules={TRANSFORMER: transformer},
        family=cfg.role_family(role),
        trainable=trainable,
        block_classes=(generation.block,),
        bfloat16_classes=(nn.Linear,) if bf16 and trainable else (),
        frozen=generation.frozen(config),
    )
    return RoleOutline(handle, evaluate)


def _open(path: str, where: str) -> LtxFolder:
    folder = open_folder(path, where=where)
    check_undamaged(path, folder.generation.components, where=where)
    return folder
