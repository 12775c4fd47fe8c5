"""`method_config` of method `finetune`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fastvideo_core.config.base import MethodConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem


class FinetuneConfig(MethodConfig):
    """Where on the noise axis to train, and how much each noise level counts."""

    timestep_sampling: Literal["uniform", "logit_normal", "mode", "shifted_logit_normal"] = Field(
        default="uniform",
        description="Distribution of the noise level before the family's shift; shifted_logit_normal is shifted inside, "
        "stretched over the whole axis, and a tenth of it is uniform",
    )
    logit_mean: float = Field(default=0.0, ge=-100, le=100, description="Mean of the logit_normal samplings, in logits")
    logit_std: float = Field(
        default=1.0, gt=0, le=100, description="Standard deviation of the logit_normal samplings, in logits"
    )
    mode_scale: float = Field(
        default=1.29, ge=-1.0, le=1.7519, description="Scale of mode sampling; above 0 favours middle noise levels"
    )
    loss_weighting: Literal["none", "sigma_sqrt", "cosmap"] = Field(
        default="none", description="Weight of the loss by noise level, apart from how levels are sampled"
    )

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        if cfg.roles["student"].trainable:
            return []
        return [
            ("roles.student.trainable", Problem(found="the student of finetune is not trainable", fix="set it to true"))
        ]
