"""The networks of a role without their weights, for `check`."""

from __future__ import annotations

from torch import nn

from fastvideo_ltx.folder import TRANSFORMER, check_undamaged
from fastvideo_ltx.generations import open_folder


def outline_role(path: str) -> dict[str, nn.Module]:
    """A role's networks on the meta device, by module name.

    Raises:
        ConfigError: the path holds no complete LTX pipeline, or a damaged one.
    """
    generation = open_folder(path, where="path").generation
    check_undamaged(path, generation.components, where="path")
    return {TRANSFORMER: generation.outline(path)}
