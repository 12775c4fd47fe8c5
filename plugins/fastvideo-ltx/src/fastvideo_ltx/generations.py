"""Which generation a folder holds: its own index says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from fastvideo_core.config.hub import is_hub_id
from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.pipeline_files import DAMAGED, check_files
from fastvideo_ltx.folder import LtxFolder, read_config
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.ltx1.generation import LtxVideo
from fastvideo_ltx.ltx2.generation import Ltx2

GENERATIONS: Mapping[int, Generation] = {1: LtxVideo(), 2: Ltx2()}
"""By number, as the tiny factory counts them."""

SUPPORTED = " or ".join(generation.supported for generation in GENERATIONS.values())


def open_folder(path: str, *, where: str) -> LtxFolder:
    """Reads a pipeline's configuration files.

    Args:
        path: folder or hub id.
        where: how errors name the place that gave the path, for example "roles.student.path".

    Raises:
        ConfigError: the path holds no LTX pipeline, an incomplete one, or a variant that is not supported.
    """
    where = f"{where} ({path})"
    with foreign_file(where, "LTX pipeline", ConfigError, DAMAGED):
        return _opened(path, where)


def _opened(path: str, where: str) -> LtxFolder:
    local = Path(path) if Path(path).is_dir() else None
    if local is None and not is_hub_id(path):
        raise ConfigError(
            Problem("there is no such folder", where, allowed=f"a folder or hub id that holds {SUPPORTED}")
        )
    if local is not None and not (local / "model_index.json").is_file():
        raise ConfigError(Problem("is a folder without model_index.json", where, allowed=SUPPORTED))
    index = read_config(DiffusionPipeline, path, None, supported=SUPPORTED, where=where)
    name = index.get("_class_name")
    generation = next((one for one in GENERATIONS.values() if name in one.pipelines), None)
    if generation is None:
        known = ", ".join(pipeline for one in GENERATIONS.values() for pipeline in one.pipelines)
        raise ConfigError(Problem(f"is a {name}", where, allowed=f"one of {known}: {SUPPORTED}"))
    if local is not None:
        check_files(local, generation.components, generation.weighted, where=where)
    folder = generation.read(path, index, where=where)
    FlowMatchEulerDiscreteScheduler.from_config(dict(folder.scheduler))
    return folder
