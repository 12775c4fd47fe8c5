"""`method_config` of method `averaged`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fastvideo_core import MethodConfig
from fastvideo_core.config.base import FloatTuple

if TYPE_CHECKING:
    from fastvideo_core import RunConfig
    from fastvideo_core.errors import Problem


class AveragedConfig(MethodConfig):
    """A few-step student, a teacher's guidance, and an average of the student."""

    steps: FloatTuple = Field(default=(1000, 600, 300), description="The student's schedule")
    guidance_scale: float = Field(default=3.0, ge=0, le=1000, description="Guidance w of the teacher, u + w (c - u)")
    consistency: float = Field(default=0.1, ge=0, le=1, description="Weight of the averaged student's x0 as a target")
    ramp: int = Field(default=2, ge=1, description="Updates in which that weight grows from 0")
    decay: float = Field(default=0.5, ge=0, lt=1, description="Of the average")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        return self.wrongly_trainable(cfg, student=True, teacher=False)
