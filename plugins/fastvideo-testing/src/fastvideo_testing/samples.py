"""How far a student's samples are from the toy data's distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_testing.toy import ToyConfig

_SAMPLES = 2048
_MANY_STEPS = 40


def sample_distance(runtime: DistillRuntime, role: str) -> float:
    """The squared 2-Wasserstein distance between the samples of a role and the data, both seen as isotropic Gaussians.

    The role is sampled as its method says (`student_schedule`), in 40 steps where it says nothing.
    """
    method, config = runtime.method, runtime.cfg.pipeline_config
    assert isinstance(config, ToyConfig)
    handle, adapter = method.bundle[role], method.adapter
    generator = torch.Generator().manual_seed(0)
    batch = adapter.prepare_batch({"vae_latent": torch.zeros(_SAMPLES, config.data.dim)})
    noise = torch.randn(batch.latents.shape, generator=generator)

    def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
        x0: Tensor = adapter.predict_x0(handle, noisy, t, batch, conditional=True)
        return x0

    schedule = method.student_schedule(runtime.cfg.method_config, adapter.shift_and_clamp_timestep)
    if schedule is None:
        levels = tuple(1000.0 * (1 - step / _MANY_STEPS) for step in range(_MANY_STEPS))
        schedule = FewStepSchedule(levels)
    samples = rollout(predict_x0, noise, schedule, kind=config.sampler_kind, generator=generator)
    data = config.data.sample(_SAMPLES, generator)
    return float(((samples.mean(0) - data.mean(0)) ** 2 + (samples.std(0) - data.std(0)) ** 2).sum())
