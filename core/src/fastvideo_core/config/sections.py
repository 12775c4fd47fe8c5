"""What every method's and every family's section of run.yaml has in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fastvideo_core.config.base import PluginConfig
from fastvideo_core.config.training import Factor


class MethodConfig(PluginConfig):
    """Base class of `method_config` sections."""

    attn_kind: Literal["dense", "vsa"] = Field(
        default="dense", description="Attention of the student; vsa (sparse) only where the family offers it"
    )


PUBLISHED = "default"
"""The value of `negative_prompt` that stands for the text that the model's makers publish."""


class PipelineConfig(PluginConfig):
    """Base class of `pipeline_config` sections."""

    flow_shift: Factor | None = Field(
        default=None,
        description="Timestep shift, used alike in training, sampling and export; null reads the checkpoint's scheduler",
    )
    sampler_kind: Literal["ode", "sde"] = Field(
        default="ode",
        description="How few-step sampling moves between noise levels: keep the noise (ode) or redraw it (sde)",
    )


class GuidedPipelineConfig(PipelineConfig):
    """Of families whose guidance takes a negative prompt."""

    negative_prompt: str = Field(
        default=PUBLISHED,
        description="Text of the unconditional half of guidance, in training, validation and sampling. `default` is the one "
        "that the model's makers publish for it. Dropped captions (training_cfg_rate) become the empty text.",
    )

    def negative_text(self, published: str, own: str | None = None) -> str:
        """The negative prompt in full: `own` of one prompt, else the run's; `default` stands for `published`."""
        text = self.negative_prompt if own is None else own
        return published if text == PUBLISHED else text
