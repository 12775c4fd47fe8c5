"""The model between the two stages of sampling: what it must be, by its configuration alone."""

from __future__ import annotations

from typing import Any

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.folder import read_config
from fastvideo_ltx.folder import LtxFolder

UPSAMPLER = "latent_upsampler"
"""Its sub-folder, as Lightricks publish it."""


def check_upsampler(kind: Any, path: str, folder: LtxFolder) -> None:
    """A pipeline can be sampled in two stages with the upsampler at `path`, a folder or hub id.

    Args:
        kind: the diffusers class of the generation's upsamplers.

    Raises:
        ConfigError: it cannot.
    """
    where, supported = "upsampler", "a spatial latent upsampler x2 of the same generation"
    if not folder.image_use.frames_apart:
        found = f"a {folder.pipeline} cannot refine latents that were upsampled"
        raise ConfigError(Problem(found, where, allowed="LTX-2, and LTX-Video from 0.9.5 on (LTXConditionPipeline)"))
    config = read_config(kind, path, UPSAMPLER, supported=supported, where=where)
    doubles = config["spatial_upsample"] and not config["temporal_upsample"]
    if not doubles or config.get("rational_spatial_scale", 2.0) != 2 or config["in_channels"] != folder.channels:
        found = f"{path} does not double height and width of {folder.channels} channels"
        raise ConfigError(Problem(found, where, allowed=supported))
