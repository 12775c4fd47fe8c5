"""`method_config` of method `velocity`; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fastvideo_core import MethodConfig

if TYPE_CHECKING:
    from fastvideo_core import RunConfig
    from fastvideo_core.errors import Problem


class VelocityConfig(MethodConfig):
    """Every option has a default or is required, and a meaning that `fastvideo-distill schema velocity` shows."""

    guidance_scale: float = Field(default=3.0, ge=0, le=1000, description="Guidance w of the teacher, u + w (c - u)")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """The student trains, the teacher does not."""
        return self.wrongly_trainable(cfg, student=True, teacher=False)
