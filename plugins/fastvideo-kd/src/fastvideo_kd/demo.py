"""The method's part of `fastvideo-distill demo`: a student of four steps from the teacher's trajectories; imports no torch."""

from __future__ import annotations

from fastvideo_core.contracts.demo import DemoData, DemoRun, MethodDemo


def kd_demo(*, fast: bool) -> MethodDemo:
    """From the teacher that finetune makes: its trajectories first, then a student that goes where they went."""
    student = DemoRun(
        name="student-4",
        roles={"student": {"trainable": True}},
        training={
            "max_train_steps": 300 if fast else 1000,
            "train_batch_size": 64,
            "learning_rate": 1.0e-3,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 30,
            "betas": [0.9, 0.99],
            "logging_steps": 20,
        },
        method_config={"denoising_steps": [1000, 750, 500, 250], "target": "velocity"},
        pipeline_config={"sampler_kind": "ode"},
        callbacks={"ema": {"decay": 0.95}},
        calls=4,
    )
    # Guidance shows more of the captions; it is in the trajectories, so that the student has it at half the calls.
    options = ("--steps", "16" if fast else "24", "--guidance-scale", "1.5", "--batch-size", "32")
    data = DemoData("trajectories", (*options, "--samples-per-file", "480"), prompts=480 if fast else 1920)
    return MethodDemo((student,), "finetune", data=data)
