"""`method_config` of method `dmd2`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from fastvideo_core.config import limits
from fastvideo_core.config.base import DenoisingSteps, FewStepConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem


class DMD2Config(FewStepConfig):
    """The student's schedule, the update policy and the score networks' settings."""

    rollout_mode: Literal["simulate", "data_latent"] = Field(
        default="simulate",
        description="The student's training input: its own rollout from pure noise (simulate, needs no videos) or data that "
        "is noised to a level of the schedule, drawn per sample (data_latent)",
    )
    dmd_denoising_steps: DenoisingSteps = Field(
        default=(1000, 750, 500, 250),
        description="The student's schedule from 1000 (or 999: pure noise) downwards; a closing 0 means clean and costs "
        "no network call",
    )
    warp_denoising_step: bool = Field(
        default=False, description="Move the schedule through the family's timestep shift before use"
    )
    phased: bool = Field(
        default=False,
        description="Train one of the student's networks (train_modules) up to the noise level at which the next one takes over, "
        "and compare scores above that level only (Phased DMD)",
    )
    generator_update_interval: int = Field(
        default=5,
        ge=1,
        le=limits.STEPS,
        description="The student is updated when iteration % interval == 0; the critic always",
    )
    real_score_guidance_scale: float = Field(
        default=3.5,
        ge=0,
        le=limits.FACTOR,
        description="Guidance w of the teacher, u + w (c - u); at 1 only one network evaluation",
    )
    min_timestep_ratio: float = Field(default=0.02, ge=0, lt=1, description="Lowest noise level of the scores")
    max_timestep_ratio: float = Field(default=0.98, gt=0, le=1, description="Highest noise level of the scores")
    adversarial_weight: float = Field(
        default=0.0,
        ge=0,
        le=limits.FACTOR,
        description="Weight of the adversarial term in the student's loss; needs videos; 0 leaves it out",
    )
    adversarial_features: Literal["critic", "teacher"] = Field(
        default="critic",
        description="Whose features the discriminator's heads see; the critic is trained along with them, the teacher is not",
    )
    discriminator_weight: float = Field(
        default=0.01,
        gt=0,
        le=limits.FACTOR,
        description="Weight of the discriminator's loss, which with the critic's features adds to the critic's own loss; "
        "DMD2's public recipes use 0.01",
    )
    discriminator_learning_rate: float | None = Field(
        default=None, ge=0, le=limits.FACTOR, description="Learning rate of the heads; null takes the critic's"
    )
    r1_weight: float = Field(
        default=0.0,
        ge=0,
        le=limits.FACTOR,
        description="Weight of the approximate R1 penalty (D(x) - D(x + sigma e))^2 in the discriminator's loss, as in APT; "
        "what it does grows with r1_sigma squared",
    )
    r1_sigma: float = Field(
        default=0.01,
        gt=0,
        le=limits.FACTOR,
        description="Size of the perturbation in the R1 penalty; with mixed_precision bf16 rather 0.1, as rounding is "
        "as large as 0.01",
    )

    @field_validator("max_timestep_ratio")
    @classmethod
    def _above_minimum(cls, value: float, info: ValidationInfo) -> float:
        lowest = info.data.get("min_timestep_ratio", 0.0)
        if value <= lowest:
            raise ValueError(f"must be above min_timestep_ratio, which is {lowest}")
        return value

    def student_updates(self, steps: int) -> int:
        """How often a run of so many iterations updates the student."""
        return steps // self.generator_update_interval

    def critic_updates(self, steps: int) -> int:
        """How often a run of so many iterations updates the critic, and the discriminator's heads."""
        return steps

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = [
            *self.wrongly_trainable(cfg, student=True, teacher=False, critic=True),
            *super().check_run(cfg),
        ]
        updates = self.student_updates(cfg.training.max_train_steps)
        if updates == 0:
            found = (
                f"the student would never be updated: the run has {cfg.training.max_train_steps} steps, the student is due "
                f"every {self.generator_update_interval}"
            )
            fix = "raise training.max_train_steps or lower generator_update_interval"
            problems.append(("method_config.generator_update_interval", Problem(found=found, fix=fix)))
        problems += self._long_warmup(cfg, "student", updates)
        problems += self._long_warmup(cfg, "critic", self.critic_updates(cfg.training.max_train_steps))
        if self.phased:
            problems += self._check_phase(cfg)
        if self.adversarial_weight == 0:
            problems += self.without_use(
                "does nothing without adversarial_weight",
                (
                    "adversarial_features",
                    "discriminator_weight",
                    "discriminator_learning_rate",
                    "r1_weight",
                    "r1_sigma",
                ),
            )
        return problems

    def _check_phase(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = []
        chosen = cfg.roles["student"].train_modules or () if "student" in cfg.roles else ("unknown",)
        if len(chosen) != 1:
            trained = ", ".join(chosen) or "all of its networks"
            found = f"phased trains one of the student's networks in a run, and this one trains {trained}"
            fix = "name one: first that of the highest noise levels, then, from that run's checkpoint, the next"
            problems.append(("roles.student.train_modules", Problem(found, fix=fix)))
        if self.adversarial_weight > 0:
            found = "the adversarial term compares clean samples, and those of a phase are not"
            fix = "set it to 0, or phased to false"
            problems.append(("method_config.adversarial_weight", Problem(found, fix=fix)))
        return problems

    @staticmethod
    def _long_warmup(cfg: RunConfig, role: str, updates: int) -> list[tuple[str, Problem]]:
        """Of the learning rate, which is counted in the role's updates; that of the run's own steps core checks."""
        own = cfg.roles[role].lr_warmup_steps if role in cfg.roles else 0
        warmup = cfg.training.lr_warmup_steps if own is None else own
        if not 0 < updates < min(warmup, cfg.training.max_train_steps):
            return []
        found = f"the {role} is updated {updates} times in this run, and its warm-up takes {warmup} updates"
        fix = f"give it {updates} or fewer, for example with roles.{role}.lr_warmup_steps"
        return [(f"{'training' if own is None else f'roles.{role}'}.lr_warmup_steps", Problem(found, fix=fix))]
