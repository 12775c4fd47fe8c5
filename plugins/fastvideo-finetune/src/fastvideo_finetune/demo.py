"""The method's part of `fastvideo-distill demo`: the teacher that follows its captions; imports no torch."""

from __future__ import annotations

from fastvideo_core.contracts.demo import DemoRun, MethodDemo


def finetune_demo(*, fast: bool) -> MethodDemo:
    """One run from the untrained network."""
    steps = 1000 if fast else 1500
    run = DemoRun(
        name="teacher",
        roles={"student": {"trainable": True}},
        training={
            "max_train_steps": steps,
            "train_batch_size": 64,
            "optimizer": "muon",
            "learning_rate": 1.0e-2,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": steps // 20,
            "betas": [0.9, 0.99],
            "training_cfg_rate": 0.1,
            "logging_steps": 25,
        },
        method_config={"timestep_sampling": "logit_normal"},
        callbacks={"ema": {"decay": 0.98 if fast else 0.995}},
    )
    return MethodDemo(runs=(run,), guidance_scale=1.5)
