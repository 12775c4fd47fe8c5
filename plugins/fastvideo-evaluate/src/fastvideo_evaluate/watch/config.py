"""Configuration of `quality_watch`; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fastvideo_core import FewStepConfig, PluginConfig
from fastvideo_core.config import limits
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core import RunConfig

BEST = "best"
"""The folder in output_dir of the checkpoint that is kept."""
STUDENT, TEACHER = "student", "teacher"
"""Roles by their names in run.yaml: whom the watch looks at, and beside whom."""


class QualityWatchConfig(PluginConfig):
    """Logs how far the student's samples are from the teacher's, keeps the best checkpoint, and warns of a collapse."""

    every: int = Field(200, ge=1, le=limits.STEPS, description="Look every so many steps, and at every checkpoint.")
    prompts: int = Field(2, ge=1, le=limits.SAMPLES, description="Rows of the data that each process samples.")
    seeds: int = Field(2, ge=1, le=limits.SAMPLES, description="Samples of each of these rows' prompts.")
    steps: int = Field(4, ge=1, le=10**3, description="Sampling steps of a student that is not made for few.")
    reference_steps: int = Field(16, ge=1, le=10**3, description="Sampling steps of the teacher, once.")
    guidance_scale: float | None = Field(
        None,
        ge=1,
        le=limits.FACTOR,
        description="Guidance of the teacher's samples; null is what the method learns from.",
    )
    threshold: float = Field(
        1.4,
        gt=1,
        le=limits.FACTOR,
        description="Warn where a measure is so many times off, beside the best look so far.",
    )
    reference_threshold: float = Field(
        1.3,
        gt=1,
        le=limits.FACTOR,
        description="Warn where a measure of the teacher's samples is so many times the data's.",
    )
    keep_best: bool = Field(True, description="Keep the checkpoint whose samples are nearest as output_dir/best.")
    lower_rate: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {}, description="Role: factor of its learning rate at every warning; {student: 0.5} halves the student's."
    )
    stop_after: int = Field(0, ge=0, le=limits.STEPS, description="End the run, saved, at this warning; 0 never.")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """There must be a student that is trained; what is set must count for something in this run."""
        return [(f"callbacks.quality_watch{'.' if key else ''}{key}", problem) for key, problem in self._problems(cfg)]

    def _problems(self, cfg: RunConfig) -> Iterator[tuple[str, Problem]]:
        trained = [name for name, role in cfg.roles.items() if role.trainable]
        if STUDENT not in trained:
            found = f"the watch looks at the role '{STUDENT}', which this run does not train"
            yield (
                "",
                Problem(found, allowed=f"trained roles: {', '.join(trained) or 'none'}", fix="remove quality_watch"),
            )
        for role in self.lower_rate:
            if role not in trained:
                yield f"lower_rate.{role}", Problem("this run does not train that role", allowed=", ".join(trained))
        if self.lower_rate and self.stop_after == 1:
            found = "the run ends at the first warning, before the lowered rate counts"
            yield "stop_after", Problem(found, fix="set it to 2 or more, or remove lower_rate")
        if TEACHER not in cfg.roles:
            for key in ("reference_steps", "reference_threshold", "guidance_scale"):
                if key in self.model_fields_set:
                    found = f"there is no role '{TEACHER}' to be sampled: the data is what the student is compared with"
                    yield key, Problem(found, fix="remove it")
        if "steps" in self.model_fields_set and isinstance(cfg.method_config, FewStepConfig):
            yield "steps", Problem("the student has a schedule of its own, and is sampled on that", fix="remove it")
        if self.keep_best and cfg.training.resume_from_checkpoint is None:
            earlier = Path(cfg.training.output_dir) / BEST
            if earlier.exists():
                fix = "go on with --resume, name another output_dir, or remove it"
                yield "", Problem(f"{earlier} is there already, of an earlier run", fix=fix)
        if (
            "keep_best" in self.model_fields_set
            and self.keep_best
            and not cfg.training.training_state_checkpointing_steps
        ):
            found = "only the run's end is saved: there is no best of several checkpoints"
            yield "keep_best", Problem(found, fix="set training.training_state_checkpointing_steps, or remove it")
