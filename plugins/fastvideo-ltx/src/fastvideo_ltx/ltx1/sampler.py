"""From a prompt to a video with LTX-Video."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXPipeline,
)
from torch import Tensor, nn

from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_data.video_sizes import VideoSize
from fastvideo_diffusers.autocast import Autocast
from fastvideo_diffusers.latents import shown
from fastvideo_diffusers.loading import load_frozen
from fastvideo_diffusers.sampler import PromptConditions
from fastvideo_diffusers.text import pad_text
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video
from fastvideo_ltx.ltx1.latents import decode_frames
from fastvideo_ltx.sampler import LtxSampler
from fastvideo_ltx.schedule import many_step_scheduler


class LtxVideoSampler(LtxSampler):
    """Sampling through LTXPipeline, or LTXConditionPipeline where the folder's index names it; see `LtxSampler`."""

    def layout(self, size: VideoSize) -> TokenLayout:
        return layout_of_video(self.folder, size)

    def sample_many_steps(
        self,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        *,
        steps: int,
        guidance_scale: float,
        generator: torch.Generator,
    ) -> Tensor:
        network: Any = Autocast(transformer) if self.autocast else transformer
        conditioned = self.folder.pipeline == LTXConditionPipeline.__name__
        scheduler: Any = many_step_scheduler(self.folder, self.config, steps=steps)
        timesteps = None
        if conditioned and self.config.flow_shift is not None:
            # The pipeline shifts none of the levels that it makes itself: they are given, and the scheduler keeps them.
            u = torch.linspace(1, 1 / steps, steps) * self.folder.num_train_timesteps
            timesteps = self.shift_and_clamp_timestep(u).tolist()
            scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.folder.num_train_timesteps)
        pipeline = (LTXConditionPipeline if conditioned else LTXPipeline)(
            tokenizer=None,
            text_encoder=None,
            vae=self.autoencoder() if conditioned else None,  # asked for its dtype
            scheduler=scheduler,
            transformer=network,
        )
        pipeline.set_progress_bar_config(disable=True)
        embeddings = self._embeddings("", conditions.text, network.dtype)
        if conditions.negative is not None:
            embeddings |= self._embeddings("negative_", conditions.negative, network.dtype)
        latents: Tensor = pipeline(
            **embeddings,
            **self.asked(size, steps=steps, guidance_scale=guidance_scale),
            frame_rate=self.adapter.frame_rate,
            timesteps=timesteps,
            generator=generator,
        )[0]
        return (pack_video(latents) if latents.ndim == 5 else latents).float()

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
