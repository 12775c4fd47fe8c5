"""The method's part of `fastvideo-distill demo`: students of few steps; imports no torch."""

from __future__ import annotations

from fastvideo_core.contracts.demo import DemoRun, MethodDemo


def dmd2_demo(*, fast: bool) -> MethodDemo:
    """From the teacher that finetune makes: students of four steps and of one; of four alone where it is fast."""
    four = [1000, 750, 500, 250]
    if fast:
        # A teacher that is half done shows more of its captions with guidance, and its student with it.
        return MethodDemo((_student(four, learning_rate=3.0e-4, guidance=1.5, fast=fast),), "finetune")
    runs = (
        _student(four, learning_rate=3.0e-4, guidance=1.0, fast=fast),
        _student([1000], learning_rate=5.0e-4, guidance=1.25, fast=fast),
    )
    return MethodDemo(runs, "finetune")


def _student(steps: list[int], *, learning_rate: float, guidance: float, fast: bool) -> DemoRun:
    return DemoRun(
        name=f"student-{len(steps)}",
        roles={
            "student": {"trainable": True},
            "teacher": {"trainable": False},
            "critic": {"trainable": True, "learning_rate": 1.0e-3},
        },
        training={
            "max_train_steps": 250 if fast else 500,
            "train_batch_size": 64,
            "learning_rate": learning_rate,
            "betas": [0.0, 0.99],
            "logging_steps": 20,
        },
        method_config={
            "dmd_denoising_steps": steps,
            "generator_update_interval": 5,
            "real_score_guidance_scale": guidance,
        },
        # Noise that is drawn anew between the steps lets a step correct what the one before got wrong.
        pipeline_config={"flow_shift": 2.0, "sampler_kind": "sde"},
        callbacks={"ema": {"decay": 0.9 if fast else 0.95}},
        calls=len(steps),
    )
