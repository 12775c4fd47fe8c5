"""Latent clips of a role for the prompts that are watched, at low cost: through the run's adapter, without a decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastvideo_core import DistillMethod, PipelineConfig, RandomStreams, RoleHandle, TrainingBatch
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.diffusion.flow import move_along
from fastvideo_core.diffusion.rollout import rollout
from fastvideo_core.distributed import context
from fastvideo_evaluate.watch.config import QualityWatchConfig
from fastvideo_evaluate.watch.statistics import Sums

PredictX0 = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, ...], t [B]) -> x0 [B, ...]."""


def first_rows(value: Any, count: int | None) -> Any:
    """The first `count` samples (None: all) of a raw batch, copied to the CPU; what a checkpoint cannot keep is left out."""
    if isinstance(value, Tensor):
        return (value[:count] if value.ndim else value).detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {str(key): kept for key, one in value.items() if (kept := first_rows(one, count)) is not None}
    if isinstance(value, (list, tuple)):
        return [first_rows(one, None) for one in value[:count]]  # each is of one sample
    return value if isinstance(value, (bool, int, float, str)) else None


def many_steps(predict_x0: PredictX0, noise: Tensor, warp: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """A sample [B, ...] by Euler steps down the probability-flow ODE, at levels that `warp` (the family's) shifts."""
    levels = warp(torch.arange(steps, 0, -1, dtype=torch.float64) / steps * 1000).tolist()
    x = noise
    for level, following in zip(levels, [*levels[1:], 0.0], strict=True):
        x0 = predict_x0(x, torch.full((len(x),), level, dtype=torch.float32, device=x.device))
        x = move_along(x, x0, level, following)
    return x


def as_video(adapter: Any, latents: Tensor, batch: TrainingBatch) -> Tensor:
    """Latents [B, ...] as [B, C, T, H, W]: what the adapter calls the video's, or themselves where they are vectors."""
    if hasattr(adapter, "unpack_latents"):
        latents = adapter.unpack_latents(latents, batch)["vae_latent"]
    return latents if latents.ndim == 5 else latents.reshape(len(latents), -1, 1, 1, 1)


@contextmanager
def as_at_inference(handle: RoleHandle) -> Iterator[None]:
    """Inside, the role's networks are in eval mode, so that dropout draws nothing, and there is no graph."""
    parts = [part for network in handle.modules.values() for part in network.modules()]
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


class Sampler:
    """Makes latent clips of roles for kept rows of the data, always from the same noise, which no stream of the run gives.

    A student of few steps is sampled on its schedule as at inference; all others in `config.steps` Euler steps.
    """

    def __init__(self, method: DistillMethod[Any], config: QualityWatchConfig) -> None:
        cfg, self._config, self._adapter = method.cfg, config, method.adapter
        self._rank, self._seed, self._training = method.mesh.data_rank, cfg.training.seed, cfg.training
        self._source = type(method).latents_source(cfg) or "data"
        self._warp = self._adapter.shift_and_clamp_timestep
        self._schedule = type(method).student_schedule(cfg.method_config, self._warp)
        self._kind = cfg.section(PipelineConfig).sampler_kind
        self._attention = getattr(cfg.method_config, "attn_kind", "dense")

    def student(self, handle: RoleHandle, rows: Sequence[Any], step: int) -> Sums:
        """Of the student as it is after `step`."""

        def sample(batch: TrainingBatch, noise: Tensor, streams: RandomStreams) -> Tensor:
            def predict(x: Tensor, t: Tensor) -> Tensor:
                x0: Tensor = self._adapter.predict_x0(handle, x, t, batch, conditional=True, attn_kind=self._attention)
                return x0

            if self._schedule is None:
                return many_steps(predict, noise, self._warp, self._config.steps)
            generator = streams.local("quality_watch/rollout")
            return rollout(predict, noise, self._schedule, kind=self._kind, generator=generator)

        return self._samples(handle, rows, sample, self._training.vsa_sparsity_at(step))

    def teacher(self, handle: RoleHandle, rows: Sequence[Any], guidance: float) -> Sums:
        """Of the teacher in many steps, at a guidance scale."""

        def sample(batch: TrainingBatch, noise: Tensor, streams: RandomStreams) -> Tensor:
            def predict(x: Tensor, t: Tensor) -> Tensor:
                x0: Tensor = self._adapter.predict_x0_guided(handle, x, t, batch, guidance_scale=guidance)
                return x0

            return many_steps(predict, noise, self._warp, self._config.reference_steps)

        return self._samples(handle, rows, sample, 0.0)

    def add_data(self, sums: Sums, raw_batch: Any) -> None:
        """Adds the latents of a raw batch; raises what the adapter does where there are none."""
        source: LatentsSource = "trajectory" if self._source == "trajectory" else "data"
        batch = self._prepared(raw_batch, source, 0.0)
        sums.add(as_video(self._adapter, batch.latents, batch)[:, None])

    def _samples(
        self,
        handle: RoleHandle,
        rows: Sequence[Any],
        sample: Callable[[TrainingBatch, Tensor, RandomStreams], Tensor],
        sparsity: float,
    ) -> Sums:
        sums, streams = Sums(), self._streams()
        with as_at_inference(handle):
            for raw in rows:
                batch = self._prepared(raw, self._source, sparsity)
                clips = []
                for _ in range(self._config.seeds):
                    generator = streams.local("quality_watch/noise")
                    noise = torch.randn(batch.latents.shape, generator=generator, device=generator.device)
                    made = sample(batch, noise.to(batch.latents.device), streams)
                    clips.append(as_video(self._adapter, made, batch))
                sums.add(torch.stack(clips, dim=1))
        return sums

    def _prepared(self, raw: Any, source: LatentsSource, sparsity: float) -> TrainingBatch:
        generator = self._streams().local("quality_watch/prepare_batch")
        batch: TrainingBatch = self._adapter.prepare_batch(
            raw, current_vsa_sparsity=sparsity, latents_source=source, generator=generator
        )
        return batch

    def _streams(self) -> RandomStreams:
        return RandomStreams(self._seed, self._rank, context.device())
