"""`method_config` of method `consistency`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from fastvideo_core.config import limits
from fastvideo_core.config.base import DenoisingSteps, FewStepConfig, PipelineConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem


class ConsistencyConfig(FewStepConfig):
    """The path that the student learns to shorten, what it is compared with, and how it is sampled."""

    pipeline_options: ClassVar[Mapping[str, Any]] = {"sampler_kind": "sde"}

    denoising_steps: DenoisingSteps = Field(
        default=(1000, 750, 500, 250),
        description="The student's sampling schedule from 1000 (or 999: pure noise) downwards; a closing 0 means clean and "
        "costs no network call. Training does not depend on it",
    )
    warp_denoising_step: bool = Field(
        default=True,
        description="Move the schedule through the family's timestep shift before use, as training's levels are",
    )
    solver_steps: int = Field(
        default=48,
        ge=1,
        le=limits.SAMPLING_STEPS,
        description="Steps N from noise to data of the path whose neighbouring points the student maps to the same end: "
        "evenly spaced before the family's timestep shift",
    )
    solver: Literal["euler", "heun"] = Field(
        default="euler",
        description="How the teacher goes one step along its path: euler with one evaluation, or heun, of second order, with "
        "two; the student ends where N such steps do",
    )
    teacher_guidance_scale: float = Field(
        default=3.0,
        ge=0,
        le=limits.FACTOR,
        description="Guidance w of the teacher, u + w (c - u), which the student learns to give without; at 1 only one network "
        "evaluation",
    )
    target: Literal["student", "average"] = Field(
        default="student",
        description="Who maps the point that is further along to the end: the student itself, without a gradient, or an "
        "average of its weights, which is a second network in memory (role `target`)",
    )
    target_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay of the averaged target after each update: decay * target + (1 - decay) * student",
    )
    loss: Literal["squared", "pseudo_huber"] = Field(
        default="squared",
        description="Of the distance d between student and target: its mean square, or sqrt(mean square + c^2) - c of each "
        "sample, which counts far outliers less",
    )
    huber_constant: float = Field(
        default=0.00054,
        gt=0,
        le=limits.FACTOR,
        description="c of the pseudo-Huber loss, in the unit of a latent's element",
    )

    @property
    def calls(self) -> int:
        """Network calls of a sample."""
        return sum(step != 0 for step in self.denoising_steps)

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = [*self.wrongly_trainable(cfg, student=True, teacher=False), *super().check_run(cfg)]
        pipeline = cfg.pipeline_config
        if self.calls > 1 and isinstance(pipeline, PipelineConfig) and pipeline.sampler_kind != "sde":
            found = "ode: it would keep noise that does not belong to the end that a consistency student jumps to"
            problems.append(("pipeline_config.sampler_kind", Problem(found, allowed="sde", fix="set it to sde")))
        if "teacher" not in cfg.roles:
            why = "does nothing without roles.teacher, where the data's own path is followed"
            of_teachers = ("solver", "teacher_guidance_scale", "validate_teacher")
            problems += self.without_use(why, of_teachers, "add a teacher")
        if self.target == "student":
            why = "does nothing with target student"
            problems += self.without_use(why, ("target_decay",), "set target to average")
        if self.loss == "squared":
            why = "does nothing with loss squared"
            problems += self.without_use(why, ("huber_constant",), "set loss to pseudo_huber")
        return problems
