"""The method's part of `fastvideo-distill demo`: a student of four steps; imports no torch."""

from __future__ import annotations

from fastvideo_core.contracts.demo import DemoRun, MethodDemo


def rcm_demo(*, fast: bool) -> MethodDemo:
    """From the teacher that finetune makes."""
    run = DemoRun(
        name="student-4",
        roles={
            "student": {"trainable": True},
            "teacher": {"trainable": False},
            "critic": {"trainable": True, "learning_rate": 1.0e-3},
        },
        training={
            "max_train_steps": 250 if fast else 500,
            "train_batch_size": 64,
            "learning_rate": 3.0e-4,
            "betas": [0.0, 0.99],
            "logging_steps": 20,
        },
        method_config={
            "dmd_denoising_steps": [1000, 750, 500, 250],
            "generator_update_interval": 5,
            "tangent_warmup_steps": 50 if fast else 100,
            "real_score_guidance_scale": 1.5 if fast else 1.0,
        },
        pipeline_config={"flow_shift": 2.0, "sampler_kind": "sde"},
        callbacks={"ema": {"decay": 0.9 if fast else 0.95}},
        calls=4,
    )
    return MethodDemo((run,), "finetune")
