"""The few-step students of the real run, one of each method; all of them start from the teacher's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checks
from families import Family

DENOISING_STEPS = [1000, 750, 500, 250]


@dataclass(frozen=True)
class Student:
    """One method's case.

    Args:
        roles: whether each is trained.
        steps: of its run.
        method_config, training: of its run.
        sampler_kind: how it is sampled.
        trajectories: how many prompts its teacher samples for it first; 0 where it trains on the clips.
        check: (the run's folder) -> what is well with its log, in words.
    """

    roles: Mapping[str, bool]
    steps: int
    method_config: Mapping[str, Any]
    check: Callable[[Path], str]
    training: Mapping[str, Any] = field(default_factory=dict)
    sampler_kind: str = "ode"
    trajectories: int = 0

    def run(self, family: Family, method: str, *, teacher: str, folder: str) -> dict[str, Any]:
        """Its run.yaml; all roles start from the teacher's checkpoint."""
        size = family.size
        return {
            "recipe": {"family": family.family, "method": method},
            "roles": {
                role: {"path": teacher, "trainable": trained, "checkpoint_role": "student"}
                for role, trained in self.roles.items()
            },
            "training": {
                "seed": 0,
                "output_dir": folder,
                "data_path": "trajectories" if self.trajectories else "data",
                "max_train_steps": self.steps,
                "train_batch_size": 4,
                "num_height": size.height,
                "num_width": size.width,
                "num_frames": size.num_frames,
                **self.training,
            },
            "pipeline_config": {
                "sampler_kind": self.sampler_kind,
                **({} if self.trajectories else family.pipeline_config),
            },
            "method_config": dict(self.method_config),
            "callbacks": {"ema": {"decay": 0.9}},
        }


DMD2_STEPS, STUDENT_EVERY, KD_STEPS, CONSISTENCY_STEPS, RCM_STEPS, WARM_UP = 40, 4, 60, 60, 40, 10
DMD2_DUE = {
    "critic_loss": range(1, DMD2_STEPS + 1),
    "student_loss": range(STUDENT_EVERY, DMD2_STEPS + 1, STUDENT_EVERY),
}
RCM_MATCHED = [step for step in range(WARM_UP + 1, RCM_STEPS + 1) if step % STUDENT_EVERY == 0]
RCM_DUE = {
    "consistency_loss": [*range(1, WARM_UP + 1), *RCM_MATCHED],
    "student_loss": RCM_MATCHED,
    "critic_loss": [step for step in range(WARM_UP + 1, RCM_STEPS + 1) if step % STUDENT_EVERY],
}

STUDENTS: Mapping[str, Student] = {
    "dmd2": Student(
        roles={"student": True, "teacher": False, "critic": True},
        steps=DMD2_STEPS,
        method_config={
            "rollout_mode": "simulate",
            "dmd_denoising_steps": DENOISING_STEPS,
            "warp_denoising_step": True,
            "generator_update_interval": STUDENT_EVERY,
            "real_score_guidance_scale": 2.0,
        },
        check=lambda folder: checks.losses_are_finite(folder, steps=DMD2_STEPS, due=DMD2_DUE),
        training={"learning_rate": 2.0e-4},
    ),
    "kd": Student(
        roles={"student": True},
        steps=KD_STEPS,
        method_config={"target": "velocity", "denoising_steps": DENOISING_STEPS},
        check=lambda folder: checks.loss_fell(folder, steps=KD_STEPS, at_least=0.2),
        training={"learning_rate": 1.0e-3},
        trajectories=32,
    ),
    "consistency": Student(
        roles={"student": True, "teacher": False},
        steps=CONSISTENCY_STEPS,
        method_config={
            "solver": "heun",
            "solver_steps": 16,
            "teacher_guidance_scale": 2.0,
            "denoising_steps": DENOISING_STEPS,
        },
        check=lambda folder: checks.total_losses_are_finite(folder, steps=CONSISTENCY_STEPS),
        training={"learning_rate": 2.0e-4},
        sampler_kind="sde",
    ),
    "rcm": Student(
        roles={"student": True, "teacher": False, "critic": True},
        steps=RCM_STEPS,
        method_config={
            "dmd_denoising_steps": DENOISING_STEPS,
            "warp_denoising_step": True,
            "tangent_warmup_steps": WARM_UP,
            "generator_update_interval": STUDENT_EVERY,
            "real_score_guidance_scale": 2.0,
        },
        check=lambda folder: checks.losses_are_finite(folder, steps=RCM_STEPS, due=RCM_DUE),
        training={"learning_rate": 2.0e-4},
        sampler_kind="sde",
    ),
}
"""By method."""
