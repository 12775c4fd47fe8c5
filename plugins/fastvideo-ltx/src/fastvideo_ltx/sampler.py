"""From a prompt to a video with any role's transformer: what both generations share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.contracts.validator import SampledVideo, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.sampler import PipelineSampler, PromptConditions
from fastvideo_ltx.adapter import LtxAdapter
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video


class LtxSampler(PipelineSampler[LtxFolder, LtxConfig]):
    """Many-step sampling through the folder's own pipeline, and few-step sampling on given timesteps.

    Few-step sampling is core's rollout over the adapter's network call: what training does. All randomness of a video
    comes from the generator: the initial noise as the pipelines draw it, then `sde`'s noise, in the order of steps.

    Args:
        adapter: of the run, or one that only samples.
    """

    unguided = "LTX's pipelines do not guide"

    def __init__(self, folder: LtxFolder, *, adapter: LtxAdapter, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.adapter = adapter

    # --- what a generation fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def layout(self, size: VideoSize) -> TokenLayout:
        """The tokens of a video."""

    @abstractmethod
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
        """Normalised packed latents [1, S, C], float32, through the folder's pipeline.

        Args:
            transformer: in eval mode.
        """

    @abstractmethod
    def decode_tokens(self, latents: Tensor, layout: TokenLayout, generator: torch.Generator) -> SampledVideo:
        """The video of normalised packed latents [1, S, C].

        Args:
            generator: for decoders that take noise.
        """

    def initial_noise(self, layout: TokenLayout, generator: torch.Generator) -> Tensor:
        """Noise [1, S, C] where the generator lives, drawn in the pipeline's order."""
        shape = (1, self.folder.channels, layout.frames, layout.height, layout.width)
        return pack_video(torch.randn(shape, generator=generator, device=generator.device))

    # --- sampling ---------------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> VideoGeometry:
        return self.folder.traits.geometry

    @property
    def negative_prompt(self) -> str:
        return self.folder.traits.negative_prompt

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        return self.adapter.shift_and_clamp_timestep(t)

    def decode(self, latents: Tensor, size: VideoSize, generator: torch.Generator) -> SampledVideo:
        return self.decode_tokens(latents, self.layout(size), generator)

    def latents(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        """Packed, [1, S, C]."""
        schedule = self.few_steps(request)
        if schedule is not None:
            return self._sample_few_steps(request, schedule, conditions, size, generator)
        return self.sample_many_steps(
            request.sample_handle.modules[TRANSFORMER],
            conditions,
            size,
            steps=self.many_steps(request),
            guidance_scale=request.guidance_scale,
            generator=generator,
        )

    def _sample_few_steps(
        self,
        request: ValidationRequest,
        schedule: FewStepSchedule,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        layout = self.layout(size)
        batch = self.adapter.video_batch(conditions.text, conditions.negative, layout)

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            # Noise of a CPU generator is the same for every device; so small a tensor may travel.
            x0 = self.adapter.predict_x0_guided(
                request.sample_handle,
                noisy.to(self.device),
                t.to(self.device),
                batch,
                guidance_scale=request.guidance_scale,
            )
            return x0.to(noisy.device)

        noise = self.initial_noise(layout, generator)
        return rollout(predict_x0, noise, schedule, kind=self.kind(request), generator=generator).float()
