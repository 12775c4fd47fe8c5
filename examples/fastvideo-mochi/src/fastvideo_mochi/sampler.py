"""From a prompt to a video: validation and `fastvideo-distill sample`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLMochi
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from fastvideo_core import RoleHandle, TrainingBatch, ValidationRequest
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.path_sampler import PathSampler
from fastvideo_data.video_sizes import VideoSize, fit_prompt, video_size
from fastvideo_mochi.adapter import MochiAdapter
from fastvideo_mochi.config import MochiConfig
from fastvideo_mochi.encoder import FPS, GEOMETRY
from fastvideo_mochi.folder import TRANSFORMER, load_transformer, load_vae
from fastvideo_mochi.latents import LatentScale, latent_shape
from fastvideo_mochi.text import TextEncoder, conditioning_of

SIZE = VideoSize(height=480, width=848, num_frames=85)
STEPS = 64
THRESHOLD = 0.025
"""Noise that the linear half of the pipeline's schedule removes."""


class MochiSampler:
    """Samples with any role: few steps where the request names levels, else on the pipeline's own schedule.

    Args:
        path: the pipeline whose autoencoder decodes; it is loaded at the first video.
        config: of the run.
        adapter: calls the network.
        scale: of the latents.
        text: from a caption to its embedding [L, D].
        device: where the networks are.
    """

    def __init__(
        self,
        path: str,
        config: MochiConfig,
        adapter: MochiAdapter,
        scale: LatentScale,
        text: Callable[[str], Tensor],
        device: torch.device,
    ) -> None:
        self._path, self._config, self._adapter, self._scale = path, config, adapter, scale
        self._text, self._device = text, device
        self._vae: AutoencoderKLMochi | None = None

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's."""
        return self._adapter.shift_and_clamp_timestep(t)

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with its size filled in.

        Raises:
            DataError: Mochi makes no videos of this size, or the prompt brings an image.
        """
        return fit_prompt(prompt, SIZE, GEOMETRY)

    @torch.no_grad()
    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video at 30 frames per second; errors as `fit_prompt`."""
        if self._vae is None:
            self._vae = load_vae(self._path, self._device)
        latents = self.sample_latents(request, prompt, generator)
        pixels = self._vae.decode(self._scale.denormalise(latents), return_dict=False)[0][0]
        frames = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return SampledVideo(frames.permute(1, 2, 3, 0).cpu(), FPS)

    def sample_latents(
        self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator
    ) -> Tensor:
        """Normalised latents [1, 12, T, H, W]; errors as `fit_prompt`."""
        size = video_size(self.fit_prompt(prompt))
        network: Any = request.sample_handle.modules[TRANSFORMER]
        shape = latent_shape(
            network.config.in_channels, num_frames=size.num_frames, height=size.height, width=size.width
        )
        noise = torch.randn(1, *shape, generator=generator).to(self._device)
        batch = TrainingBatch(noise, self._conditioning(prompt.caption), self._conditioning(""))

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            return self._adapter.predict_x0_guided(
                request.sample_handle, noisy, t, batch, guidance_scale=request.guidance_scale
            )

        kind = request.sampler_kind or "ode"
        return rollout(predict_x0, noise, self._schedule(request), kind=kind, generator=generator)

    def _schedule(self, request: ValidationRequest) -> FewStepSchedule:
        if request.sampling_timesteps is not None:
            return FewStepSchedule(request.sampling_timesteps)
        steps = request.sampling_steps or STEPS
        sigmas = linear_quadratic_schedule(steps, THRESHOLD) if steps > 1 else [1.0]
        levels = torch.tensor(sigmas, dtype=torch.float64) * self._adapter.num_train_timesteps
        return FewStepSchedule(tuple(self.shift_and_clamp_timestep(levels).tolist()))

    def _conditioning(self, caption: str) -> dict[str, Tensor]:
        embedding = self._text(caption).to(self._device)
        return conditioning_of(embedding[None], torch.tensor([len(embedding)]))


def build_sampler(model_path: str, config: MochiConfig, device: torch.device) -> PathSampler:
    """A sampler with the pipeline's own network as the role "student".

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """
    where = "model path"
    transformer = load_transformer(model_path, dtype=torch.float32, where=where).to(device).requires_grad_(False)
    text = PromptEmbeddings(TextEncoder(model_path, device, where), keep_encoder=True).get
    scale = LatentScale.of(model_path, device)
    adapter = MochiAdapter(config.shift, scale, text(""), device, autocast=False)
    sampler = MochiSampler(model_path, config, adapter, scale, text, device)
    return PathSampler(RoleHandle("student", {TRANSFORMER: transformer}), sampler)
