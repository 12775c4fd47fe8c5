"""`pipeline_config` of family `mochi`; never imports torch."""

from __future__ import annotations

from fastvideo_core import RunConfig
from fastvideo_core.config.base import GuidedPipelineConfig
from fastvideo_core.errors import Problem
from fastvideo_diffusers.video_limits import VideoLimits

SIZE_MULTIPLE = 16
FRAMES_DIVISOR = 6
LIMITS = VideoLimits("mochi", "Mochi", SIZE_MULTIPLE, FRAMES_DIVISOR, "MochiPipeline does not guide")


class MochiConfig(GuidedPipelineConfig):
    """The options of every family with guidance. Mochi's checkpoints have no shift, so that null is 1."""

    @property
    def shift(self) -> float:
        """The run's one timestep shift."""
        return 1.0 if self.flow_shift is None else self.flow_shift

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Sizes, guidance scales and attention that Mochi cannot do, and the data that it needs."""
        return LIMITS.problems(cfg)
