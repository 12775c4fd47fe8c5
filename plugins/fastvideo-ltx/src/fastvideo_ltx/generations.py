"""Which generation a folder holds: its own index says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.folder import check_components, open_pipeline
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.ltx1.generation import LtxVideo
from fastvideo_ltx.ltx2.generation import Ltx2

GENERATIONS: Mapping[int, Generation] = {1: LtxVideo(), 2: Ltx2()}
"""By number, as the tiny factory counts them."""

SUPPORTED = " or ".join(generation.supported for generation in GENERATIONS.values())


def open_folder(path: str, *, where: str) -> LtxFolder:
    """Reads a pipeline's configuration files; see `fastvideo_diffusers.folder.open_pipeline`.

    Raises:
        ConfigError: the path holds no LTX pipeline, an incomplete one, or a variant that is not supported.
    """

    def read(index: Mapping[str, Any], where: str) -> LtxFolder:
        name = index.get("_class_name")
        generation = next((one for one in GENERATIONS.values() if name in one.pipelines), None)
        if generation is None:
            known = ", ".join(pipeline for one in GENERATIONS.values() for pipeline in one.pipelines)
            raise ConfigError(Problem(f"is a {name}", where, allowed=f"one of {known}: {SUPPORTED}"))
        check_components(path, generation.components, generation.weighted, where=where)
        return generation.read(path, index, where=where)

    return open_pipeline(path, read, what="LTX pipeline", supported=SUPPORTED, where=where)
