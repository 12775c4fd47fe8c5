"""A trained role as a folder that plain MochiPipeline loads: `fastvideo-distill export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import MochiTransformer3DModel
from torch import Tensor

from fastvideo_diffusers.export import export_pipeline
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.loading import outline_model
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.folder import open_folder


def export(
    base: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    pipeline_config: MochiConfig,
    student_schedule: Any,
) -> list[str]:
    """Writes the base pipeline with the trained network; see `fastvideo_diffusers.export.export_pipeline`."""
    transformer = outline_model(MochiTransformer3DModel, open_folder(base).path, TRANSFORMER)
    export_pipeline(base, out, modules, transformer=transformer)
    if student_schedule is None or student_schedule(lambda t: t) is None:
        return []
    return ["MochiPipeline samples on a schedule of its own; `fastvideo-distill sample` follows the student's"]
