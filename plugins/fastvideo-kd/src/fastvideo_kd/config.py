"""`method_config` of method `kd`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fastvideo_core.config import limits
from fastvideo_core.config.base import DenoisingSteps, MethodConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem


class KDConfig(MethodConfig):
    """What of the teacher the student imitates, and in which steps it is sampled."""

    target: Literal["x0", "velocity", "guidance"] = Field(
        default="x0",
        description="What the student regresses: the clean end of the teacher's trajectory (x0), the slope from its state to "
        "the one at the student's next step (velocity), or, on clips instead of trajectories, the teacher's guided prediction "
        "(guidance), after which it is sampled in many steps without guidance",
    )
    denoising_steps: DenoisingSteps = Field(
        default=(1000, 750, 500, 250),
        description="The student's schedule from 1000 (or 999: pure noise) downwards; a closing 0 means clean and costs no "
        "network call. The trajectories must hold a state at each of them. Not for target guidance",
    )
    warp_denoising_step: bool = Field(
        default=True,
        description="Move the schedule through the family's timestep shift before use, as a teacher's own steps are",
    )
    teacher_guidance_scale: float = Field(
        default=5.0,
        ge=0,
        le=limits.FACTOR,
        description="For target guidance: w of the teacher, u + w (c - u), which the student learns to give without; the "
        "trajectories of the other targets have theirs in them",
    )

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = [*self.wrongly_trainable(cfg, student=True, teacher=False), *self.without_sampler_kind(cfg)]
        if self.target == "velocity" and getattr(cfg.pipeline_config, "sampler_kind", "ode") == "sde":
            found = "sde: it redraws the noise, and a student of target velocity knows the teacher's paths alone"
            fix = "set it to ode, or target to x0"
            problems.append(("pipeline_config.sampler_kind", Problem(found, allowed="ode", fix=fix)))
        return [*problems, *(self._check_guidance(cfg) if self.target == "guidance" else self._check_paths(cfg))]

    def _check_paths(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Of the targets that are taken from trajectories."""
        problems = self.without_use(
            "is in the trajectories already", ["teacher_guidance_scale"], "set target to guidance"
        )
        if "teacher" in cfg.roles:
            found = f"target {self.target} learns from the trajectories in the data and calls no teacher"
            problems.append(("roles.teacher", Problem(found, fix="remove it, or set method_config.target to guidance")))
        return problems

    def _check_guidance(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        why = "does nothing with target guidance, whose student is sampled in many steps"
        problems = self.without_use(why, ["denoising_steps", "warp_denoising_step"], "set another target")
        if "teacher" not in cfg.roles:
            fix = "add it, with the path of the model that is guided"
            problems.append(("roles.teacher", Problem("target guidance needs a teacher, and there is none", fix=fix)))
        if cfg.training.validation_guidance_scale != (1.0,):
            shown = ", ".join(f"{scale:g}" for scale in cfg.training.validation_guidance_scale)
            found = f"is {shown}: what the student gives is guided already, and would be guided twice"
            fix = 'set it to "1"; `sample` takes it too'
            problems.append(("training.validation_guidance_scale", Problem(found, allowed="1", fix=fix)))
        return problems
