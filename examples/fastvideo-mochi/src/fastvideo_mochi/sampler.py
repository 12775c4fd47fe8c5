"""From a prompt to a video: validation and `fastvideo-distill sample`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from fastvideo_core import ValidationRequest
from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.model_sampler import PathSampler
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.latents import denormalise, frames_of, shown
from fastvideo_diffusers.loading import load_frozen
from fastvideo_diffusers.sampler import PipelineSampler, PromptConditions, path_sampler
from fastvideo_mochi.adapter import MochiAdapter
from fastvideo_mochi.config import FRAMES_DIVISOR, LIMITS, SIZE_MULTIPLE, MochiConfig
from fastvideo_mochi.folder import MochiFolder, open_folder
from fastvideo_mochi.text import TextEncoder

GEOMETRY = VideoGeometry(frames_divisor=FRAMES_DIVISOR, frames_remainder=1, size_multiple=SIZE_MULTIPLE, fps=30.0)
SIZE = VideoSize(height=480, width=848, num_frames=85)
THRESHOLD = 0.025
"""Noise that the linear half of the pipeline's schedule removes."""


class MochiSampler(PipelineSampler[MochiFolder, MochiConfig]):
    """Samples with any role: few steps where the request names levels, else on the pipeline's own schedule."""

    geometry = GEOMETRY
    negative_prompt = ""
    unguided = LIMITS.unguided

    def __init__(self, folder: MochiFolder, *, adapter: MochiAdapter, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self._adapter = adapter

    def latents(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        few = self.few_steps(request)
        shape = (1, self.folder.channels, *self.folder.latent_size(size))
        noise = torch.randn(shape, generator=generator).to(self.device)
        batch = self._adapter.prompt_batch(noise, conditions.text, conditions.negative)

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            return self._adapter.predict_x0_guided(
                request.sample_handle, noisy, t, batch, guidance_scale=request.guidance_scale
            )

        kind = "ode" if few is None else self.kind(request)
        return rollout(predict_x0, noise, few or self._own_schedule(request), kind=kind, generator=generator)

    def decode(self, latents: Tensor, size: VideoSize, generator: torch.Generator) -> SampledVideo:
        pixels = self.autoencoder().decode(denormalise(latents, self.folder), return_dict=False)[0]
        return SampledVideo(shown(frames_of(pixels, self.folder)[0]), GEOMETRY.fps)

    def load_vae(self) -> Any:
        return load_frozen(AutoencoderKLMochi, self.folder.path, "vae", device=self.device)

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        return self._adapter.shift_and_clamp_timestep(t)

    def _own_schedule(self, request: ValidationRequest) -> FewStepSchedule:
        steps = self.many_steps(request)
        sigmas = linear_quadratic_schedule(steps, THRESHOLD) if steps > 1 else [1.0]
        levels = torch.tensor(sigmas, dtype=torch.float64) * self._adapter.num_train_timesteps
        return FewStepSchedule(tuple(self.shift_and_clamp_timestep(levels).tolist()))


def build_sampler(model_path: str, config: MochiConfig, device: torch.device) -> PathSampler:
    """A sampler with the pipeline's own network as the role "student".

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """
    where = "model path"
    folder = open_folder(model_path, where=where)
    transformer = load_frozen(MochiTransformer3DModel, model_path, TRANSFORMER, device=device, where=where)
    prompts = PromptEmbeddings(TextEncoder(folder, device, where), keep_encoder=True)
    adapter = MochiAdapter(
        folder,
        flow_shift=config.shift,
        device=device,
        training=None,
        autocast=False,
        prompts=prompts,
        negative_prompt=config.negative_text(""),
    )
    sampler = MochiSampler(
        folder, adapter=adapter, config=config, device=device, prompts=prompts, size=SIZE, autocast=False
    )
    return path_sampler(folder, {TRANSFORMER: transformer}, sampler, family="mochi")
