"""From a prompt to a video with any role's transformer: what the samplers of families on diffusers pipelines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from fastvideo_core.config.base import GuidedPipelineConfig
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_core.errors import ConfigError, ContractError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.model_sampler import FamilySampler, PathSampler
from fastvideo_data.prompt_fit import PromptImages, fit_prompt, read_prompt_images, video_size
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_data.video_validator import evaluating
from fastvideo_diffusers.folder import PipelineFolder
from fastvideo_diffusers.schedule_fit import exported_schedule

F = TypeVar("F", bound=PipelineFolder)
C = TypeVar("C", bound=GuidedPipelineConfig)


@dataclass(frozen=True)
class PromptConditions:
    """What one video is made from.

    Args:
        text: the prompt's embedding [L, D].
        negative: that of the negative prompt; None without guidance.
        images: those that the prompt brings.
    """

    text: Tensor
    negative: Tensor | None
    images: PromptImages


class PipelineSampler(ABC, Generic[F, C]):
    """Many-step sampling as the pipeline samples, and few-step sampling on given timesteps.

    All randomness of a video comes from the generator: the initial noise, then `sde`'s noise, in the order of steps.

    Args:
        folder: the base pipeline; its VAE is loaded at the first video.
        config: sampler kind and negative prompt.
        device: where the VAE runs.
        prompts: embeddings of captions.
        size: of videos whose prompt names none.
        autocast: compute in bfloat16 where the transformer's weights are float32, as in training.

    Attributes:
        unguided: where guidance scales below 1 do not guide, for messages.
    """

    unguided: ClassVar[str]

    def __init__(
        self,
        folder: F,
        *,
        config: C,
        device: torch.device,
        prompts: PromptEmbeddings,
        size: VideoSize,
        autocast: bool,
    ) -> None:
        self.folder = folder
        self.config = config
        self.device = device
        self.prompts = prompts
        self.autocast = autocast
        self._size = size
        self._vae: Any = None

    # --- what a family fills in -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def geometry(self) -> VideoGeometry:
        """The videos that the family makes."""

    @property
    @abstractmethod
    def negative_prompt(self) -> str:
        """The published one, which `negative_prompt: default` stands for."""

    @abstractmethod
    def load_vae(self) -> Any:
        """The autoencoder that decodes: float32, frozen, on the device."""

    @abstractmethod
    def latents(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        """Normalised latents of one video [1, ...], float32; the transformer is in eval mode, without gradients."""

    @abstractmethod
    def decode(self, latents: Tensor, size: VideoSize, generator: torch.Generator) -> SampledVideo:
        """The video of normalised latents [1, ...].

        Args:
            generator: for decoders that take noise.
        """

    def unpacked(self, latents: Tensor, size: VideoSize) -> Tensor:
        """The picture's latents [C, T, H, W] of what `latents` gives."""
        return latents[0]

    @abstractmethod
    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: for schedules that a method warps by the timestep shift."""

    # --- sampling ---------------------------------------------------------------------------------------------------

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with its video's size, before any work.

        Raises:
            DataError: its size or its images do not fit.
        """
        return fit_prompt(prompt, self._size, self.geometry, self.folder.image_use)

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video.

        Raises:
            DataError: as `fit_prompt`.
            ConfigError: the request asks for what sampling through the pipeline cannot do.
        """
        latents, size = self.sample_latents(request, prompt, generator), video_size(self.fit_prompt(prompt))
        with torch.no_grad():
            return replace(self.decode(latents, size, generator), latents=self.unpacked(latents, size))

    def sample_latents(
        self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator
    ) -> Tensor:
        """Normalised latents [1, ...], float32; arguments and errors as `sample`."""
        size = video_size(self.fit_prompt(prompt))
        self._check(request)
        text = self.prompts.get(prompt.caption)
        negative = None
        if request.guidance_scale > 1:
            negative = self.prompts.get(self.config.negative_text(self.negative_prompt, prompt.negative_prompt))
        conditions = PromptConditions(text, negative, read_prompt_images(prompt, size))
        with torch.no_grad(), ExitStack() as modes:
            for module in request.sample_handle.modules.values():
                modes.enter_context(evaluating(module))
            return self.latents(request, conditions, size, generator)

    def few_steps(self, request: ValidationRequest) -> FewStepSchedule | None:
        """The schedule that the request names; None where it asks for many steps."""
        if request.sampling_timesteps is None:
            return None
        return FewStepSchedule(tuple(request.sampling_timesteps), self.folder.num_train_timesteps)

    def many_steps(self, request: ValidationRequest) -> int:
        """The number of steps that the request asks for where it names no timesteps; ContractError where it names none."""
        if request.sampling_steps is None:
            found = "the request names neither sampling_steps nor sampling_timesteps"
            fix = "the method names one of them: few_step_request and many_step_requests do"
            raise ContractError(Problem(found, "ValidationRequest", fix=fix))
        return request.sampling_steps

    def asked(self, size: VideoSize, *, steps: int, guidance_scale: float) -> dict[str, Any]:
        """What every diffusers pipeline is asked for in one call: latents of a video."""
        return {
            "height": size.height,
            "width": size.width,
            "num_frames": size.num_frames,
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "output_type": "latent",
            "return_dict": False,
        }

    def kind(self, request: ValidationRequest) -> SamplerKind:
        """How x moves from one level of few steps to the next."""
        return request.sampler_kind or self.config.sampler_kind

    def autoencoder(self) -> Any:
        """The VAE, loaded once."""
        if self._vae is None:
            self._vae = self.load_vae()
        return self._vae

    def _check(self, request: ValidationRequest) -> None:
        if request.guidance_scale < 1:
            found = f"guidance scale {request.guidance_scale} is below 1, where {self.unguided}"
            raise ConfigError(Problem(found, allowed="1 (no guidance) or more"))
        if request.sampling_timesteps is not None:
            return
        if request.sampler_kind == "sde":
            allowed = "sde on the timesteps of a few-step student; many-step sampling is the pipeline's own ode"
            raise ConfigError(Problem("sampler_kind sde without timesteps", allowed=allowed))
        if request.sampling_steps is None:
            found = "neither a number of steps nor timesteps to sample on"
            raise ConfigError(Problem(found, fix="give one of the two"))


def path_sampler(
    folder: PipelineFolder, networks: Mapping[str, nn.Module], sampler: FamilySampler, *, family: str
) -> PathSampler:
    """A folder's own networks as the role "student", and the sampler that uses it: what `sample` works with.

    Raises:
        ConfigError: the folder is an exported student, and what it says of its schedule is damaged.
    """
    frozen = {name: network.requires_grad_(False) for name, network in networks.items()}
    handle = RoleHandle("student", frozen, family=family)
    student = exported_schedule(folder.marked, where=f"{folder.path}/scheduler")
    return PathSampler(handle, sampler, student)
