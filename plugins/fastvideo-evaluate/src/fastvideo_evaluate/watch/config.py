"""Configuration of `quality_watch`; imports no torch."""

from __future__ import annotations

from pydantic import Field

from fastvideo_core import PluginConfig
from fastvideo_core.config import limits


class QualityWatchConfig(PluginConfig):
    """Logs how far the student's samples are from the teacher's, keeps the best checkpoint, and warns of a collapse."""

    every: int = Field(200, ge=1, le=limits.STEPS, description="Look every so many steps, and at each checkpoint.")
    prompts: int = Field(2, ge=1, le=limits.SAMPLES, description="Rows of the data, per process, that are sampled.")
    seeds: int = Field(2, ge=1, le=limits.SAMPLES, description="Samples of each of them.")
    steps: int = Field(4, ge=1, le=limits.STEPS, description="Steps of a student that is no few-step one.")
    reference_steps: int = Field(16, ge=1, le=limits.STEPS, description="Steps of the teacher, once.")
    guidance_scale: float | None = Field(
        None, gt=0, le=limits.FACTOR, description="Guidance of the teacher's samples; null is that of the method."
    )
