"""What every method's and every family's section of run.yaml has in common."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fastvideo_core import limits
from fastvideo_core.config.base import PluginConfig

if TYPE_CHECKING:  # the schedule needs torch, which reading a configuration does not
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.diffusion.rollout import FewStepSchedule


class MethodConfig(PluginConfig):
    """Base class of `method_config` sections."""

    attn_kind: Literal["dense", "vsa"] = Field(
        default="dense", description="Attention of the student; vsa (sparse) only where the family offers it"
    )

    def latents_source(self) -> Literal["data", "zeros"]:
        """Whether training reads latents from the data (`data`) or only their shape counts (`zeros`)."""
        return "data"

    def student_schedule(self, warp: Callable[[Any], Any]) -> FewStepSchedule | None:
        """The few-step schedule that this method trains its student for; None when it is sampled in many steps.

        Args:
            warp: the family's `shift_and_clamp_timestep`.
        """
        return None


class PipelineConfig(PluginConfig):
    """Base class of `pipeline_config` sections."""

    flow_shift: float | None = Field(
        default=None,
        gt=0,
        le=limits.FACTOR,
        description="Timestep shift, used alike in training, sampling and export; null reads the checkpoint's scheduler",
    )
    sampler_kind: Literal["ode", "sde"] = Field(
        default="ode",
        description="How few-step sampling moves between noise levels: keep the noise (ode) or redraw it (sde)",
    )

    def unread_tensors(self) -> Collection[str]:
        """Names of stored tensors that a run with this section has no use for; data with and without them then go together."""
        return ()

    def resolve(self, cfg: RunConfig) -> PipelineConfig:
        """This section with what it leaves to the pipelines and the data written out, as far as it must outlive the run.

        The result is stored with the run's checkpoints, so that sampling and exporting them need neither run.yaml nor data.

        Args:
            cfg: the run; every role's path is the pipeline that it rests on.

        Raises:
            UserError: pipelines or data do not say what is needed.
        """
        return self
