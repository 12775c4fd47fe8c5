"""From a prompt to a video with any role's transformer: what both generations share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2.utils import STAGE_2_DISTILLED_SIGMA_VALUES
from PIL import Image
from torch import Tensor, nn

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.prompt_fit import video_size
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.loading import load_frozen
from fastvideo_diffusers.sampler import PipelineSampler, PromptConditions
from fastvideo_ltx.adapter import LtxAdapter
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video
from fastvideo_ltx.schedule import many_step_scheduler
from fastvideo_ltx.upsampler import UPSAMPLER

REFINING_STEPS = FewStepSchedule(tuple(1000 * sigma for sigma in STAGE_2_DISTILLED_SIGMA_VALUES))
"""The levels of the second stage, as Lightricks publish them for the distilled model."""


class LtxSampler(PipelineSampler[LtxFolder, LtxConfig]):
    """Many-step sampling through the folder's own pipeline, and few-step sampling on given timesteps.

    Few-step sampling is core's rollout over the adapter's network call: what training does. All randomness of a video
    comes from the generator: the initial noise as the pipelines draw it, then `sde`'s noise, in the order of steps.

    Args:
        adapter: of the run, or one that only samples.
    """

    unguided = "LTX's pipelines do not guide"
    upsampler_class: ClassVar[type[nn.Module]]

    def __init__(self, folder: LtxFolder, *, adapter: LtxAdapter, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.adapter = adapter
        self._upsampler: nn.Module | None = None

    # --- what a generation fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def layout(self, size: VideoSize) -> TokenLayout:
        """The tokens of a video."""

    @abstractmethod
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
        """Normalised packed latents [1, S, C], float32, through the folder's pipeline, or the one of its generation that takes
        the prompt's images.

        Args:
            transformer: in eval mode.
            steps: how many, on the pipeline's own levels; or exactly these levels.
        """

    @abstractmethod
    def encode_image(self, image: Tensor, size: VideoSize, generator: torch.Generator) -> Tensor:
        """The normalised tokens [1, H W, C] of a given frame uint8 [H, W, 3], as the image-to-video pipeline encodes it."""

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

    def initial_state(
        self, size: VideoSize, image: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Noise as `initial_noise`, and the tokens of a given first frame; drawn in the order of the pipeline that takes it."""
        first = None if image is None else self.encode_image(image, size, generator)
        return self.initial_noise(self.layout(size), generator), first

    def levels(self, steps: int | FewStepSchedule) -> tuple[FlowMatchEulerDiscreteScheduler, list[float] | None]:
        """A scheduler for the pipeline, and the timesteps that it is given; None for its own."""
        if isinstance(steps, int):
            return many_step_scheduler(self.folder, self.config, steps=steps), None
        plain = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.folder.num_train_timesteps)
        return plain, list(steps.timesteps)

    @abstractmethod
    def refine(
        self,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        small: Tensor,
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """The second stage: normalised packed latents of half the size, upsampled and sampled again from REFINING_STEPS on.

        Args:
            size: of the finished video.
            small: [1, S, C].
        """

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

    def unpacked(self, latents: Tensor, size: VideoSize) -> Tensor:
        layout = self.layout(size)
        return unpack_video(latents[:, : layout.video], layout)[0]

    def latents(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        """Packed, [1, S, C]; in two stages where there is an upsampler."""
        if self.config.upsampler is None:
            return self._one_stage(request, conditions, size, generator)
        self.upsampler()
        small = self._one_stage(request, conditions, half(size), generator)
        network = request.sample_handle.modules[TRANSFORMER]
        return self.refine(network, conditions, size, small.to(self.device), generator=generator)

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        fitted = super().fit_prompt(prompt)
        if self.config.upsampler is not None:
            small, where = half(video_size(fitted)), prompt.where or f"prompt {prompt.caption!r}"
            self.geometry.check(
                height=small.height,
                width=small.width,
                num_frames=small.num_frames,
                where=f"{where}, sampled at half its size first",
            )
        return fitted

    def upsampler(self) -> nn.Module:
        """The model that doubles height and width of un-normalised latents, loaded once.

        Raises:
            ConfigError: its weights cannot be read.
        """
        path = self.config.upsampler
        assert path is not None
        if self._upsampler is None:
            self._upsampler = load_frozen(self.upsampler_class, path, UPSAMPLER, device=self.device, where="upsampler")
        return self._upsampler

    def _one_stage(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        levels = self.few_steps(request)
        if levels is not None and conditions.images.only_first:
            return self._sample_few_steps(request, levels, conditions, size, generator)
        if levels is not None and self.kind(request) == "sde":
            allowed = "ode: sde draws new noise for the given frames' tokens too"
            raise ConfigError(Problem("sampler_kind sde with images at other frames than the first", allowed=allowed))
        return self.sample_through_pipeline(
            request.sample_handle.modules[TRANSFORMER],
            conditions,
            size,
            steps=levels or self.many_steps(request),
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
        noise, first = self.initial_state(size, conditions.images.first, generator)
        batch = self.adapter.video_batch(
            conditions.text, conditions.negative, self.layout(size), first=first, generator=generator
        )

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

        return rollout(predict_x0, noise, schedule, kind=self.kind(request), generator=generator).float()


def half(size: VideoSize) -> VideoSize:
    """Of the first of two stages."""
    return replace(size, height=size.height // 2, width=size.width // 2)


def ready_pipeline(kind: Any, **components: Any) -> Any:
    """A pipeline of a class, for text that is encoded, without progress bars."""
    made = kind(tokenizer=None, text_encoder=None, **components)
    made.set_progress_bar_config(disable=True)
    return made


def pil_image(image: Tensor) -> Image.Image:
    """A picture uint8 [H, W, 3] as the pipelines take it."""
    return Image.fromarray(image.numpy())
