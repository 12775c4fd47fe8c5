"""From a prompt to a video with any role's transformer: what both generations share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest, evaluating
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.video_sizes import VideoSize, fit_prompt, video_size
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_ltx.adapter import LtxAdapter
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video


class LtxSampler(ABC):
    """Many-step sampling through the folder's own pipeline, and few-step sampling on given timesteps.

    Few-step sampling is core's rollout over the adapter's network call: what training does. All randomness of a video
    comes from the generator: the initial noise as the pipelines draw it, then `sde`'s noise, in the order of steps.

    Args:
        folder: the base pipeline; its VAE is loaded at the first video.
        adapter: of the run, or one that only samples.
        config: sampler kind, negative prompt, frame rate.
        device: where the VAE runs.
        prompts: embeddings of captions.
        size: of videos whose prompt names none.
        autocast: compute in bfloat16 where the transformer's weights are float32, as in training.
    """

    def __init__(
        self,
        folder: LtxFolder,
        *,
        adapter: LtxAdapter,
        config: LtxConfig,
        device: torch.device,
        prompts: PromptEmbeddings,
        size: VideoSize,
        autocast: bool,
    ) -> None:
        self.folder = folder
        self.adapter = adapter
        self.config = config
        self.device = device
        self.prompts = prompts
        self.autocast = autocast
        self._size = size

    # --- what a generation fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def layout(self, size: VideoSize) -> TokenLayout:
        """The tokens of a video."""

    @abstractmethod
    def sample_many_steps(
        self,
        transformer: nn.Module,
        text: Tensor,
        negative: Tensor | None,
        size: VideoSize,
        *,
        steps: int,
        guidance_scale: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Normalised packed latents [1, S, C], float32, through the folder's pipeline.

        Args:
            transformer: in eval mode.
            text: the prompt's embedding [L, D].
            negative: that of the negative prompt; None at guidance_scale 1.
        """

    @abstractmethod
    def decode(self, latents: Tensor, layout: TokenLayout, generator: torch.Generator) -> SampledVideo:
        """The video of normalised packed latents [1, S, C].

        Args:
            generator: for decoders that take noise.
        """

    def initial_noise(self, layout: TokenLayout, generator: torch.Generator) -> Tensor:
        """Noise [1, S, C] where the generator lives, drawn in the pipeline's order."""
        shape = (1, self.folder.channels, layout.frames, layout.height, layout.width)
        return pack_video(torch.randn(shape, generator=generator, device=generator.device))

    # --- sampling ---------------------------------------------------------------------------------------------------

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with its video's size, before any work.

        Raises:
            DataError: its size does not fit, or it brings an image.
        """
        return fit_prompt(prompt, self._size, self.folder.generation.geometry)

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video.

        Raises:
            DataError: as `fit_prompt`.
            ConfigError: the request asks for what LTX's sampling cannot do.
        """
        latents = self.sample_latents(request, prompt, generator)
        return self.decode(latents, self.layout(video_size(self.fit_prompt(prompt))), generator)

    def sample_latents(
        self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator
    ) -> Tensor:
        """Normalised packed latents [1, S, C], float32; arguments and errors as `sample`."""
        size = video_size(self.fit_prompt(prompt))
        _check(request)
        text = self.prompts.get(prompt.caption)
        negative_text = self.config.negative_text(self.folder.generation.negative_prompt, prompt.negative_prompt)
        negative = self.prompts.get(negative_text) if request.guidance_scale > 1 else None
        transformer = request.sample_handle.modules[TRANSFORMER]
        with torch.no_grad(), evaluating(transformer):
            if request.sampling_timesteps is not None:
                return self._few_steps(request, text, negative, size, generator)
            assert request.sampling_steps is not None
            return self.sample_many_steps(
                transformer,
                text,
                negative,
                size,
                steps=request.sampling_steps,
                guidance_scale=request.guidance_scale,
                generator=generator,
            )

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: for schedules that a method warps by the timestep shift."""
        return self.adapter.shift_and_clamp_timestep(t)

    def _few_steps(
        self,
        request: ValidationRequest,
        text: Tensor,
        negative: Tensor | None,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        assert request.sampling_timesteps is not None
        layout = self.layout(size)
        batch = self.adapter.prompt_batch(text, negative, layout, frame_rate=self.adapter.frame_rate)

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

        return rollout(
            predict_x0,
            self.initial_noise(layout, generator),
            FewStepSchedule(tuple(request.sampling_timesteps), self.folder.num_train_timesteps),
            kind=request.sampler_kind or self.config.sampler_kind,
            generator=generator,
        ).float()


def _check(request: ValidationRequest) -> None:
    if request.guidance_scale < 1:
        raise ConfigError(
            Problem(
                f"guidance scale {request.guidance_scale} is below 1, where LTX's pipelines do not guide",
                allowed="1 (no guidance) or more",
            )
        )
    if request.sampling_timesteps is not None:
        return
    if request.sampler_kind == "sde":
        raise ConfigError(
            Problem(
                "sampler_kind sde without timesteps",
                allowed="sde on the timesteps of a few-step student; many-step sampling is the pipeline's own ode",
            )
        )
    if request.sampling_steps is None:
        raise ConfigError(Problem("neither a number of steps nor timesteps to sample on", fix="give one of the two"))
