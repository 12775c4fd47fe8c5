"""`method_config` of method `rcm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from fastvideo_core.config import limits
from fastvideo_core.config.base import DenoisingSteps, PipelineConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem
from fastvideo_dmd2.config import DMD2Config


class RcmConfig(DMD2Config):
    """The consistency term, and beside it the options of dmd2 with the constants of rCM."""

    pipeline_options: ClassVar[Mapping[str, Any]] = {"sampler_kind": "sde"}
    training_options: ClassVar[Mapping[str, Any]] = {
        "max_train_steps": 10_000,
        "learning_rate": 2e-6,
        "betas": (0.0, 0.999),
        "weight_decay": 0.01,
        "max_grad_norm": 0.0,
    }

    dmd_denoising_steps: DenoisingSteps = Field(
        default=(1000, 933.8, 852.9, 609.0),
        description="The student's schedule from 1000 (or 999: pure noise) downwards, of validation and `sample`, and its number "
        "of steps in training; a closing 0 means clean and costs no network call",
    )
    generator_update_interval: int = Field(
        default=5,
        ge=1,
        le=limits.STEPS,
        description="After the warm-up the student is updated when iteration % interval == 0, and the critic in all other "
        "iterations",
    )
    real_score_guidance_scale: float = Field(
        default=5.0,
        ge=0,
        le=limits.FACTOR,
        description="Guidance w of the teacher, u + w (c - u), in both terms; at 1 only one network evaluation",
    )
    dmd_weight: float = Field(
        default=1.0,
        ge=0,
        le=limits.FACTOR,
        description="Weight of the distribution matching loss; at 0 the method is sCM alone, and takes no critic",
    )
    consistency_weight: float = Field(
        default=100.0, gt=0, le=limits.FACTOR, description="Weight of the consistency loss, a mean over elements"
    )
    tangent_warmup_steps: int = Field(
        default=1000,
        ge=0,
        le=limits.STEPS,
        description="The part of the tangent that comes from the student's own derivative grows from 0 to 1 in so many "
        "iterations, in which the student alone is trained, by the consistency loss alone; 0 is none (rCM's 14B recipe)",
    )
    consistency_logit_mean: float = Field(
        default=0.7,
        ge=-limits.FACTOR,
        le=limits.FACTOR,
        description="Noise levels of the consistency term are sigmoid(mean + std z), z normal, and not shifted; "
        "rCM takes 0.7 for 1.3B, 1.5 for 14B",
    )
    consistency_logit_std: float = Field(
        default=1.6, gt=0, le=limits.FACTOR, description="The std of the same; 1.6 in sCM and rCM"
    )
    rollout_times: Literal["random", "schedule"] = Field(
        default="random",
        description="Timesteps of the student's own rollout behind the first, where rollout_mode is simulate: drawn anew in each "
        "iteration, uniform, then shifted, then falling (random), or those of dmd_denoising_steps (schedule)",
    )

    def student_updates(self, steps: int) -> int:
        return min(steps, self.tangent_warmup_steps) + self.matching_updates(steps) if self.dmd_weight else steps

    def critic_updates(self, steps: int) -> int:
        return steps - self.student_updates(steps)

    def matching_updates(self, steps: int) -> int:
        """How many of the student's updates in so many iterations have the distribution matching loss in them."""
        return super().student_updates(steps) - super().student_updates(min(steps, self.tangent_warmup_steps))

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        problems = []
        if self.attn_kind != "dense":
            found = f"attention '{self.attn_kind}' has no tangent"
            problems.append(("method_config.attn_kind", Problem(found, allowed="dense")))
        if self.phased:
            found = "the consistency term trains clean samples at all noise levels, and those of a phase are not"
            problems.append(("method_config.phased", Problem(found, allowed="false", fix="remove it, or take dmd2")))
        wanted, there = self.dmd_weight > 0, "critic" in cfg.roles
        if wanted and not there:
            found = "distribution matching needs a critic"
            fix = "add roles.critic, trainable, with the student's path, or set dmd_weight: 0 (sCM alone)"
            return [*problems, ("roles.critic", Problem(found, fix=fix))]
        if there and not wanted:
            found = "a critic is of no use with dmd_weight: 0"
            problems.append(("roles.critic", Problem(found, fix="remove it, or give dmd_weight a value")))
        problems += super().check_run(cfg)
        problems += self._check_matching(cfg.training.max_train_steps) if wanted else self._check_sampling(cfg)
        if not wanted:
            unused = ["rollout_mode", "rollout_times", "generator_update_interval", "adversarial_weight"]
            unused += ["min_timestep_ratio", "max_timestep_ratio"]
            problems += self.without_use("does nothing with dmd_weight: 0", unused, "give dmd_weight a value")
        elif self.rollout_mode == "data_latent":
            why = "does nothing with rollout_mode: data_latent"
            problems += self.without_use(why, ("rollout_times",), "set rollout_mode to simulate")
        return problems

    def _check_matching(self, steps: int) -> list[tuple[str, Problem]]:
        """Whether a run of so many iterations comes to distribution matching."""
        interval, warmup = self.generator_update_interval, self.tangent_warmup_steps
        updated = {
            "critic": self.critic_updates(steps),
            "student (by distribution matching)": self.matching_updates(steps),
        }
        never = " and the ".join(who for who, updates in updated.items() if updates == 0)
        if not never:
            return []
        key = "tangent_warmup_steps" if steps <= warmup else "generator_update_interval"
        found = (
            f"the {never} would never be updated: the run has {steps} steps, {min(warmup, steps)} of them are warm-up, "
        )
        found += f"and then the student is due every {interval}, the critic in all others"
        fix = "raise training.max_train_steps or change this, or set dmd_weight: 0 (sCM alone)"
        return [(f"method_config.{key}", Problem(found, fix=fix))]

    def _check_sampling(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """sCM knows the clean ends alone; distribution matching trains the transitions of `sampler_kind`, whichever it is."""
        calls = sum(step != 0 for step in self.dmd_denoising_steps)
        pipeline = cfg.pipeline_config
        if calls == 1 or not isinstance(pipeline, PipelineConfig) or pipeline.sampler_kind == "sde":
            return []
        found = (
            f"{pipeline.sampler_kind}: it would keep noise that does not belong to the end that the student jumps to"
        )
        return [("pipeline_config.sampler_kind", Problem(found, allowed="sde", fix="set it to sde"))]
