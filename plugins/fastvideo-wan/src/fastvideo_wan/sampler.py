"""From a prompt to a video with any role's transformer, through diffusers' WanPipeline or WanImageToVideoPipeline."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from torch import Tensor

from fastvideo_core.contracts.validator import SampledVideo, ValidationRequest
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_data.model_sampler import PathSampler
from fastvideo_data.prompt_fit import PromptImages
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.adapter import SPARSITY
from fastvideo_diffusers.autocast import Autocast
from fastvideo_diffusers.latents import shown
from fastvideo_diffusers.sampler import PipelineSampler, PromptConditions, path_sampler
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_diffusers.text import pad_text
from fastvideo_wan.config import NEGATIVE_PROMPT, STUDENT, WanConfig
from fastvideo_wan.folder import TRANSFORMER_2, WanFolder, open_folder
from fastvideo_wan.image_encoder import ImageEncoder, as_image
from fastvideo_wan.latents import decode_frames
from fastvideo_wan.loading import load_transformer, load_vae
from fastvideo_wan.schedule import FewStepScheduler, resolve_flow_shift
from fastvideo_wan.sparse import GATE, add_gates, allow_sparse_calls, calling, sparse_call
from fastvideo_wan.text import TextEncoder


class WanSampler(PipelineSampler[WanFolder, WanConfig]):
    """Sampling through diffusers' pipelines, many steps with its own scheduler, few with the student's schedule in its place.

    Args:
        flow_shift: the run's one flow shift.
        boundary_ratios: by role, of those that have two networks; see `WanFolder`.
        sparsity: of the student's attention; None where that is dense.
    """

    negative_prompt = NEGATIVE_PROMPT
    unguided = "WanPipeline does not guide"

    def __init__(
        self,
        folder: WanFolder,
        *,
        flow_shift: float,
        boundary_ratios: Mapping[str, float],
        sparsity: float | None,
        **settings: Any,
    ) -> None:
        super().__init__(folder, **settings)
        self._sparsity = sparsity
        self._flow_shift = flow_shift
        self._boundary_ratios = boundary_ratios
        self._image_encoder = ImageEncoder(folder.path, device=self.device, where="model path")

    @property
    def geometry(self) -> VideoGeometry:
        return self.folder.geometry

    def latents(
        self,
        request: ValidationRequest,
        conditions: PromptConditions,
        size: VideoSize,
        generator: torch.Generator,
    ) -> Tensor:
        scheduler, steps = self._scheduler(request, generator)
        shape = (1, self.folder.channels, *self.folder.latent_size(size))
        handle = request.sample_handle
        sparse = self._sparsity if (handle.copy_of or handle.name) == STUDENT else None
        networks = {name: Autocast(one) if self.autocast else one for name, one in handle.modules.items()}
        ratio = self._boundary_ratios[handle.copy_of or handle.name] if TRANSFORMER_2 in networks else None
        pipeline, images = self._pipeline(
            conditions.images,
            scheduler=scheduler,
            boundary_ratio=ratio,
            expand_timesteps=self.folder.expand_timesteps,
            **networks,
        )
        pipeline.set_progress_bar_config(disable=True)
        with ExitStack() as calls:
            for network in handle.modules.values():
                call = None if sparse is None else sparse_call(network, shape, sparse, self.device)
                calls.enter_context(calling(network, call))
            video: Tensor = pipeline(
                prompt_embeds=self._padded(conditions.text),
                negative_prompt_embeds=None if conditions.negative is None else self._padded(conditions.negative),
                **self.asked(size, steps=steps, guidance_scale=request.guidance_scale),
                guidance_scale_2=None if ratio is None else self._second_scale(request),
                latents=torch.randn(shape, generator=generator, device=generator.device),
                **images,
            )[0]
        return video.float()

    def _pipeline(self, images: PromptImages, **components: Any) -> tuple[Any, dict[str, Any]]:
        """The pipeline of a prompt with these images, and what it is called with of them."""
        components |= {"tokenizer": None, "text_encoder": None}
        given = [one for one in (images.first, images.last) if one is not None]
        if not given:
            return WanPipeline(vae=None, **components), {}
        # The given frames are encoded by the pipeline itself, which has to have the VAE for it.
        pipeline = WanImageToVideoPipeline(vae=self.autoencoder(), **components)
        if self.folder.images is not None and self.folder.images.features is not None:
            pipeline.encode_image = lambda image, device: self._image_encoder.features(given)
        return pipeline, dict(zip(("image", "last_image"), map(as_image, given), strict=False))

    def decode(self, latents: Tensor, size: VideoSize, generator: torch.Generator) -> SampledVideo:
        return SampledVideo(shown(decode_frames(self.autoencoder(), latents, self.folder)[0]), self.geometry.fps)

    def load_vae(self) -> Any:
        return load_vae(self.folder.path, device=self.device)

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        return timestep_shift(self._flow_shift, self.folder.num_train_timesteps)(t)

    def _scheduler(self, request: ValidationRequest, generator: torch.Generator) -> tuple[Any, int]:
        schedule = self.few_steps(request)
        if schedule is not None:
            return FewStepScheduler(schedule, kind=self.kind(request), generator=generator), len(schedule)
        return shifted_scheduler(self.folder, self._flow_shift), self.many_steps(request)

    def _second_scale(self, request: ValidationRequest) -> float | None:
        """The guidance scale of the second network; None for that of the first.

        Raises:
            ConfigError: it guides and the first does not, where WanPipeline guides neither.
        """
        asked, first = request.guidance_scale_2, request.guidance_scale
        if asked is None:
            return self.config.guidance_scale_2 if first > 1 else None
        if asked < 1 or first <= 1 < asked:
            found = f"guidance scales {first:g} and {asked:g}"
            allowed = "1 or more; above 1 for the second network only where it is for the first: WanPipeline guides neither else"
            raise ConfigError(Problem(found, allowed=allowed))
        return asked

    def _padded(self, embedding: Tensor) -> Tensor:
        return pad_text(embedding[None], self.folder.text_length)[0].to(self.device)


def build_sampler(
    model_path: str, pipeline_config: WanConfig, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PathSampler:
    """A sampler for the pipeline at `model_path`; videos have the usual size of its generation unless a prompt says otherwise.

    Args:
        model_path: folder or hub id.
        pipeline_config: flow shift, sampler kind, negative prompt.
        device: where everything runs.
        dtype: of transformer and text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no Wan pipeline.
    """
    folder = open_folder(model_path, where="model path")
    sparsity, gated = pipeline_config.student_sparsity, False
    networks = {
        name: load_transformer(model_path, dtype=dtype, device=device, where="model path", name=name)
        for name in folder.networks
    }
    if sparsity is not None:  # a run's, whose checkpoint brings what its gates are
        gated = pipeline_config.sparse_gates
    elif any(hasattr(network.blocks[0], GATE) for network in networks.values()):
        sparsity = float(folder.marked.get(SPARSITY, 0))
    else:
        sparsity = folder.marked.get(SPARSITY)
    for network in networks.values() if sparsity is not None else ():
        allow_sparse_calls(network)
        if gated:
            add_gates(network)
    encoder = TextEncoder(model_path, device=device, dtype=dtype, where="model path")
    sampler = WanSampler(
        folder,
        boundary_ratios={} if folder.boundary_ratio is None else {"student": folder.boundary_ratio},
        config=pipeline_config,
        flow_shift=resolve_flow_shift(folder, pipeline_config),
        sparsity=sparsity,
        device=device,
        prompts=PromptEmbeddings(encoder, keep_encoder=True),
        size=folder.usual.size,
        autocast=False,
    )
    return path_sampler(folder, networks, sampler, family="wan")
