"""From a prompt to a video with any role's transformer, through diffusers' WanPipeline."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.sampler import StudentSchedule
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest, evaluating
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.path_sampler import PathSampler
from fastvideo_data.video_sizes import VideoSize, fit_prompt
from fastvideo_diffusers.autocast import Autocast
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_wan.config import NEGATIVE_PROMPT, WanConfig
from fastvideo_wan.folder import WanFolder, open_folder
from fastvideo_wan.latents import decode_frames, latent_shape
from fastvideo_wan.loading import load_transformer, load_vae
from fastvideo_wan.schedule import FewStepScheduler, many_step_scheduler, resolve_flow_shift
from fastvideo_wan.sizes import FPS, GEOMETRY, SIZE
from fastvideo_wan.text import TextEncoder, pad_text


class WanSampler:
    """Many-step sampling with the pipeline's scheduler and guidance, and few-step sampling on given timesteps.

    All randomness of a video comes from the generator: the initial noise, then `sde`'s noise, in the order of steps.

    Args:
        folder: the base pipeline; its VAE is loaded at the first video.
        config: sampler kind and negative prompt.
        flow_shift: the run's one flow shift.
        device: where the VAE runs.
        prompts: embeddings of captions.
        size: of videos whose prompt names none.
        autocast: compute in bfloat16 where the transformer's weights are float32, as in training.
    """

    def __init__(
        self,
        folder: WanFolder,
        *,
        config: WanConfig,
        flow_shift: float,
        device: torch.device,
        prompts: PromptEmbeddings,
        size: VideoSize,
        autocast: bool,
    ) -> None:
        self._folder = folder
        self._config = config
        self._flow_shift = flow_shift
        self._device = device
        self._prompts = prompts
        self._size = size
        self._autocast = autocast
        self._vae: AutoencoderKLWan | None = None

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with its video's size, before any work.

        Raises:
            DataError: its size does not fit, or it brings an image.
        """
        return fit_prompt(prompt, self._size, GEOMETRY)

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video at 16 frames per second.

        Raises:
            DataError: as `fit_prompt`.
            ConfigError: the request asks for what Wan's sampling cannot do.
        """
        frames = decode_frames(self._autoencoder(), self.sample_latents(request, prompt, generator), self._folder)[0]
        return SampledVideo(frames=(frames * 255).round().to(torch.uint8), fps=FPS)

    def sample_latents(
        self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator
    ) -> Tensor:
        """Normalised latents [1, 16, T, H, W], float32; arguments and errors as `sample`."""
        prompt = self.fit_prompt(prompt)
        assert prompt.height is not None
        assert prompt.width is not None
        assert prompt.num_frames is not None
        if request.guidance_scale < 1:
            raise ConfigError(
                Problem(
                    f"guidance scale {request.guidance_scale} is below 1, where WanPipeline does not guide",
                    allowed="1 (no guidance) or more",
                )
            )
        scheduler, steps = self._scheduler(request, generator)
        shape = latent_shape(self._folder, num_frames=prompt.num_frames, height=prompt.height, width=prompt.width)
        noise = torch.randn(1, *shape, generator=generator, device=generator.device)
        transformer = request.sample_handle.modules[TRANSFORMER]
        negative = self._config.negative_text(NEGATIVE_PROMPT, prompt.negative_prompt)
        pipeline = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            scheduler=scheduler,
            transformer=Autocast(transformer) if self._autocast else transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad(), evaluating(transformer):
            latents: Tensor = pipeline(
                prompt_embeds=self._text(prompt.caption),
                negative_prompt_embeds=self._text(negative) if request.guidance_scale > 1 else None,
                height=prompt.height,
                width=prompt.width,
                num_frames=prompt.num_frames,
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                latents=noise,
                output_type="latent",
                return_dict=False,
            )[0]
        return latents.float()

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's."""
        return timestep_shift(self._flow_shift, self._folder.num_train_timesteps)(t)

    def _scheduler(self, request: ValidationRequest, generator: torch.Generator) -> tuple[Any, int]:
        if request.sampling_timesteps is not None:
            schedule = FewStepSchedule(tuple(request.sampling_timesteps), self._folder.num_train_timesteps)
            kind = request.sampler_kind or self._config.sampler_kind
            return FewStepScheduler(schedule, kind=kind, generator=generator), len(schedule)
        if request.sampler_kind == "sde":
            raise ConfigError(
                Problem(
                    "sampler_kind sde without timesteps",
                    allowed="sde on the timesteps of a few-step student; many-step sampling is the pipeline's own ode",
                )
            )
        if request.sampling_steps is None:
            raise ConfigError(
                Problem("neither a number of steps nor timesteps to sample on", fix="give one of the two")
            )
        return many_step_scheduler(self._folder, self._flow_shift), request.sampling_steps

    def _text(self, caption: str) -> Tensor:
        return pad_text(self._prompts.get(caption)[None], text_length=self._folder.text_length).to(self._device)

    def _autoencoder(self) -> AutoencoderKLWan:
        if self._vae is None:
            self._vae = load_vae(self._folder.path, device=self._device)
        return self._vae


def build_sampler(
    model_path: str, pipeline_config: WanConfig, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PathSampler:
    """A sampler for the pipeline at `model_path`; videos are 480 x 832 and 81 frames unless a prompt says otherwise.

    Args:
        model_path: folder or hub id.
        pipeline_config: flow shift, sampler kind, negative prompt.
        device: where everything runs.
        dtype: of transformer and text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no Wan 2.1 text-to-video pipeline.
    """
    folder = open_folder(model_path, where="model path")
    transformer = load_transformer(model_path, dtype=dtype, device=device, where="model path").requires_grad_(False)
    encoder = TextEncoder(model_path, device=device, dtype=dtype, where="model path")
    sampler = WanSampler(
        folder,
        config=pipeline_config,
        flow_shift=resolve_flow_shift(folder, pipeline_config),
        device=device,
        prompts=PromptEmbeddings(encoder, keep_encoder=True),
        size=SIZE,
        autocast=False,
    )
    student = StudentSchedule.exported(folder.marked, where=f"{model_path}/scheduler")
    return PathSampler(RoleHandle("student", {TRANSFORMER: transformer}, family="wan"), sampler, student)
