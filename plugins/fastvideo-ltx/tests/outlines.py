"""A pipeline's network without weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_ltx.family import LtxFamily


def outline_role(path: str | Path) -> dict[str, nn.Module]:
    """The network of a complete pipeline on the meta device, as a run's `check` makes it."""
    family = LtxFamily()
    folder = family.open_folder(str(path), where="path")
    check_undamaged(str(path), family.components(folder), where="path")
    return {"transformer": family.meta_network(folder, dtype=torch.float32, where="path")}
