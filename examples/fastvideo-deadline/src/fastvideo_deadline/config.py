"""The section `callbacks.deadline` of run.yaml; never imports torch."""

from __future__ import annotations

from pydantic import Field

from fastvideo_core import PluginConfig


class DeadlineConfig(PluginConfig):
    """How long a run may train."""

    minutes: float = Field(
        gt=0, le=10**7, description="Minutes of training, over all resumes, after which the run ends."
    )
