"""A trained role as a folder that plain MochiPipeline loads: `fastvideo-distill export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from torch import Tensor

from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_diffusers.pipeline_copy import ROOT_FILES, component_names, copy_parts, new_folder
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.folder import TRANSFORMER, check_folder, outline


def export(
    base: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    pipeline_config: MochiConfig,
    student_schedule: Any,
) -> list[str]:
    """Writes the base pipeline with the trained network.

    Args:
        base: folder or hub id whose other parts are copied.
        out: the new folder.
        modules: {"transformer": state dict}.
        pipeline_config: of the run.
        student_schedule: of a few-step student, given the family's shift; else None.

    Returns:
        notes for the user.

    Raises:
        ConfigError: the base is no Mochi pipeline.
        CheckpointError: the weights do not fit it.
    """
    transformer: Any = outline(base)[TRANSFORMER]
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in modules[TRANSFORMER].items()}
        transformer.load_state_dict(weights, assign=True)
    except (KeyError, RuntimeError) as error:
        fix = "name the pipeline that the role was trained from"
        raise CheckpointError(
            Problem(f"its weights do not fit: {str(error)[:300]}", f"base {base}", fix=fix)
        ) from error
    parts = [name for name in component_names(check_folder(base), where=f"base {base}") if name != TRANSFORMER]
    wanted = [*ROOT_FILES, *(f"{name}/*" for name in parts)]
    source = Path(base) if Path(base).is_dir() else Path(snapshot_download(base, allow_patterns=wanted))
    with new_folder(Path(out)) as aside:
        copy_parts(source, aside, parts)
        transformer.save_pretrained(aside / TRANSFORMER)
    if student_schedule is None or student_schedule(lambda t: t) is None:
        return []
    return ["MochiPipeline samples on a schedule of its own; `fastvideo-distill sample` follows the student's"]
