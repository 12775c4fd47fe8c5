"""From a prompt to a video with LTX-Video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXLatentUpsamplePipeline,
    LTXPipeline,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn

from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_data.prompt_fit import PromptImages
from fastvideo_data.video_sizes import VideoSize
from fastvideo_diffusers.autocast import Autocast
from fastvideo_diffusers.latents import normalise, shown
from fastvideo_diffusers.loading import load_frozen
from fastvideo_diffusers.sampler import PromptConditions
from fastvideo_diffusers.text import pad_text
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video
from fastvideo_ltx.ltx1.latents import decode_frames
from fastvideo_ltx.sampler import REFINING_STEPS, LtxSampler, half, pil_image, ready_pipeline


class LtxVideoSampler(LtxSampler):
    """Sampling through LTXPipeline and LTXImageToVideoPipeline, or LTXConditionPipeline where the folder's index names it; see
    `LtxSampler`."""

    upsampler_class = LTXLatentUpsamplerModel

    def layout(self, size: VideoSize) -> TokenLayout:
        return layout_of_video(self.folder, size)

    @property
    def _conditioned(self) -> bool:
        return self.folder.image_use.frames_apart > 0

    def sample_through_pipeline(
        self,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        *,
        steps: int | FewStepSchedule,
        guidance_scale: float,
        generator: torch.Generator,
    ) -> Tensor:
        network: Any = Autocast(transformer) if self.autocast else transformer
        scheduler, timesteps = self.levels(steps)
        calls = steps if isinstance(steps, int) else len(steps)
        first = conditions.images.first
        own: dict[str, Any] = {}
        if not self._conditioned:
            kind = LTXPipeline if first is None else LTXImageToVideoPipeline
            if first is not None:  # encoded here, in the VAE's own precision
                noise, given = self.initial_state(size, first, generator)
                assert given is not None
                noise[:, : given.shape[1]] = given
                own["latents"] = noise
        else:
            kind = LTXConditionPipeline
            own = self._conditions(conditions.images, size)
            if timesteps is None and self.config.flow_shift is not None:
                # The pipeline shifts none of the levels that it makes itself: they are given, and the scheduler keeps them.
                u = torch.linspace(1, 1 / calls, calls) * self.folder.num_train_timesteps
                timesteps = self.shift_and_clamp_timestep(u).tolist()
                scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.folder.num_train_timesteps)
        own["timesteps"] = timesteps
        pipeline = self._pipeline(kind, network, scheduler)
        embeddings = self._text(conditions, network.dtype)
        asked = self.asked(size, steps=calls, guidance_scale=guidance_scale)
        latents: Tensor = pipeline(
            **embeddings, **asked, **own, frame_rate=self.adapter.frame_rate, generator=generator
        )[0]
        return (pack_video(latents) if latents.ndim == 5 else latents).float()

    def refine(
        self,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        small: Tensor,
        *,
        generator: torch.Generator,
    ) -> Tensor:
        network: Any = Autocast(transformer) if self.autocast else transformer
        upsample = LTXLatentUpsamplePipeline(vae=self.autoencoder(), latent_upsampler=self.upsampler())
        latents = unpack_video(small, self.layout(half(size)))
        large = upsample(latents=latents, output_type="latent", return_dict=False)[0]
        levels = [self.folder.num_train_timesteps, *REFINING_STEPS.timesteps]
        scheduler, _ = self.levels(REFINING_STEPS)
        latents = self._pipeline(LTXConditionPipeline, network, scheduler)(
            **self._text(replace(conditions, negative=None), network.dtype),
            **self.asked(size, steps=len(levels), guidance_scale=1.0),
            **self._conditions(conditions.images, size),
            latents=large,
            timesteps=levels,
            denoise_strength=1 - 1 / len(levels),  # it leaves out the first level
            frame_rate=self.adapter.frame_rate,
            generator=generator,
        )[0]
        return pack_video(latents).float()

    def _pipeline(self, kind: Any, network: nn.Module, scheduler: FlowMatchEulerDiscreteScheduler) -> Any:
        """One of LTX-Video's pipelines; of the VAE it asks the dtype, and encodes images with it."""
        vae = self.autoencoder() if self._conditioned else None
        return ready_pipeline(kind, vae=vae, scheduler=scheduler, transformer=network)

    def _text(self, conditions: PromptConditions, dtype: torch.dtype) -> dict[str, Tensor]:
        embeddings = self._embeddings("", conditions.text, dtype)
        if conditions.negative is not None:
            embeddings |= self._embeddings("negative_", conditions.negative, dtype)
        return embeddings

    def initial_state(
        self, size: VideoSize, image: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        if not self._conditioned:
            return super().initial_state(size, image, generator)
        noise = self.initial_noise(self.layout(size), generator)
        return noise, None if image is None else self.encode_image(image, size, generator)

    def encode_image(self, image: Tensor, size: VideoSize, generator: torch.Generator) -> Tensor:
        """A draw from the VAE's posterior, as the pipelines take it."""
        picture = VideoProcessor(vae_scale_factor=self.folder.spatial_factor).preprocess(
            pil_image(image), size.height, size.width
        )
        posterior = self.autoencoder().encode(picture[:, :, None].to(self.device)).latent_dist
        return pack_video(normalise(posterior.sample(generator), self.folder)).to(generator.device)

    def _conditions(self, images: PromptImages, size: VideoSize) -> dict[str, Any]:
        """What LTXConditionPipeline is asked for to show images."""
        frames = ((images.first, 0), (images.last, size.num_frames - 1))
        given = [LTXVideoCondition(pil_image(one), frame_index=index) for one, index in frames if one is not None]
        given += [
            LTXVideoCondition(pil_image(one), frame_index=frame, strength=strength)
            for one, frame, strength in images.conditions
        ]
        noise = self.config.first_frame_noise
        asked = {"conditions": given, **({} if noise is None else {"image_cond_noise_scale": noise})}
        return asked if given else {}

    def decode_tokens(self, latents: Tensor, layout: TokenLayout, generator: torch.Generator) -> SampledVideo:
        frames = decode_frames(
            self.autoencoder(),
            unpack_video(latents, layout),
            self.folder,
            decode_timestep=self.config.decode_timestep,
            generator=generator,
        )[0]
        return SampledVideo(shown(frames), self.adapter.frame_rate)

    def load_vae(self) -> AutoencoderKLLTXVideo:
        return load_frozen(AutoencoderKLLTXVideo, self.folder.path, "vae", device=self.device)

    def _embeddings(self, prefix: str, embedding: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        text, mask = pad_text(embedding[None].to(self.device), self.folder.text_length)
        return {f"{prefix}prompt_embeds": text.to(dtype), f"{prefix}prompt_attention_mask": mask}
