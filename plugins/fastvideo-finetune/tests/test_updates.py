"""Gradient accumulation of fine-tuning, on the toy family."""

import pytest
import torch

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.base import PluginConfig
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_testing.runs import build_run, toy_family


class Gradients(Callback):
    """The student's gradients at each update, in one vector."""

    def __init__(self):
        super().__init__(PluginConfig())
        self.seen = []

    @hookimpl
    def before_optimizer_step(self, method):
        self.seen.append(torch.cat([p.grad.flatten() for p in method.student.trainable_parameters()]).clone())


def gradients_of(folder, **training):
    """Of 3 updates; noise and timesteps are handed out sample by sample, whatever the micro-batches are."""
    folder.mkdir()
    settings = {"output_dir": str(folder / "out"), "max_train_steps": 3, "learning_rate": 1e-3, **training}
    run = {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "org/base", "trainable": True}},
        "training": settings,
        "method_config": {"loss_weighting": "cosmap"},
    }
    runtime = build_run(folder, run)
    generator = torch.Generator().manual_seed(0)
    noise, levels = iter(torch.randn(12, 2, generator=generator)), iter(1000 * torch.rand(12, generator=generator))
    runtime.method.noise_like = lambda latents, stream: torch.stack([next(noise) for _ in range(len(latents))])
    runtime.method.sample_timesteps = lambda size: torch.stack([next(levels) for _ in range(size)])
    callback = Gradients()
    trainer = DistillTrainer(runtime.training_args, config={})
    trainer.run(runtime.method, runtime.dataloader, 3, callbacks=CallbackManager({"gradients": callback}))
    return callback.seen


@pytest.mark.parametrize(("rounds", "batch"), [(2, 2), (4, 1)])
def test_accumulated_rounds_give_the_gradients_of_one_large_batch(tmp_path, rounds, batch):
    with toy_family():
        accumulated = gradients_of(tmp_path / "rounds", gradient_accumulation_steps=rounds, train_batch_size=batch)
        at_once = gradients_of(tmp_path / "once", train_batch_size=4)
    assert len(at_once) == 3
    for one, other in zip(accumulated, at_once, strict=True):
        assert one.norm() > 1e-2
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
