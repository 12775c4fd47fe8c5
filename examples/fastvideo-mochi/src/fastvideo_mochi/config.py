"""`pipeline_config` of family `mochi`; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core import MethodConfig
from fastvideo_core.config.sections import GuidedPipelineConfig
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core import RunConfig


class MochiConfig(GuidedPipelineConfig):
    """The options of every family with guidance. Mochi's checkpoints have no shift, so that null is 1."""

    @property
    def shift(self) -> float:
        """The run's one timestep shift."""
        return 1.0 if self.flow_shift is None else self.flow_shift

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """What Mochi cannot do."""
        problems = []
        if isinstance(cfg.method_config, MethodConfig) and cfg.method_config.attn_kind != "dense":
            problem = Problem("the family 'mochi' has dense attention only", allowed="dense", fix="remove attn_kind")
            problems.append(("method_config.attn_kind", problem))
        return problems
