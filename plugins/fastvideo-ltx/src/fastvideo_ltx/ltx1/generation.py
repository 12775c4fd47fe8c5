"""LTX-Video 0.9.x as a generation of LTX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformerBlock
from torch import Tensor
from transformers import T5EncoderModel

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.folder import TRANSFORMER, check_values, noise_axis, read_config, read_tensors, whole_numbers
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE
from fastvideo_diffusers.loading import load_frozen
from fastvideo_diffusers.sequence_parallel import Group
from fastvideo_diffusers.text import T5TextEncoder
from fastvideo_ltx.config import FRAMES_DIVISOR, SIZE_MULTIPLE
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.lora_formats import VIDEO_FORMATS
from fastvideo_ltx.ltx1.adapter import LtxVideoAdapter, folder_positions
from fastvideo_ltx.ltx1.network import predict_velocity, split_tokens
from fastvideo_ltx.ltx1.sampler import LtxVideoSampler
from fastvideo_ltx.ltx1.tiny import write_tiny


@dataclass(frozen=True)
class Conventions:
    """What the diffusers pipelines of LTX-Video do differently.

    Args:
        text_length: tokens of text that the network gets.
        text_masked: whether T5 itself is kept from the padding.
        causal_positions: whether the first latent frame stands for one frame, so that frame f starts at 8 f - 7.
    """

    text_length: int
    text_masked: bool
    causal_positions: bool


PUBLISHED_FIRST = Conventions(text_length=128, text_masked=False, causal_positions=False)
PIPELINES = {
    LTXPipeline.__name__: PUBLISHED_FIRST,
    LTXImageToVideoPipeline.__name__: PUBLISHED_FIRST,
    LTXConditionPipeline.__name__: Conventions(text_length=256, text_masked=True, causal_positions=True),
}

SUPPORTED = "LTX-Video 0.9.x in diffusers format (for example Lightricks/LTX-Video)"


class LtxVideo(Generation):
    """LTX-Video 0.9.x: one stream, T5 text.

    The folder's own index tells which conventions its transformer was trained with: LTXConditionPipeline is that of 0.9.5
    and later.
    """

    name = "LTX-Video"
    variants = ("ltx",)
    supported = SUPPORTED
    pipelines = tuple(PIPELINES)
    components = (TRANSFORMER, "vae", "text_encoder", "tokenizer", "scheduler")
    weighted = (TRANSFORMER, "vae", "text_encoder")
    encoders = (VAE, TEXT_ENCODER)
    decoders: ClassVar[Mapping[str, Any]] = {"vae": AutoencoderKLLTXVideo}
    streams = ("video",)
    transformer = LTXVideoTransformer3DModel
    block = LTXVideoTransformerBlock
    adapter = LtxVideoAdapter
    sampler = LtxVideoSampler
    lora_formats = VIDEO_FORMATS
    geometry = VideoGeometry(frames_divisor=FRAMES_DIVISOR, frames_remainder=1, size_multiple=SIZE_MULTIPLE, fps=25.0)
    size = VideoSize(height=512, width=704, num_frames=161)
    # of InferenceConfig in Lightricks/LTX-Video, ltx_video/inference.py
    negative_prompt = "worst quality, inconsistent motion, blurry, jittery, distorted"

    def frames_apart(self, pipeline: str) -> int:
        return int(PIPELINES[pipeline].causal_positions)

    def text_models(self, folder: LtxFolder) -> Mapping[str, Any]:
        return {"text_encoder": T5EncoderModel}

    def read(self, path: str, index: Mapping[str, Any], *, where: str) -> LtxFolder:
        def config(kind: Any, subfolder: str) -> dict[str, Any]:
            return read_config(kind, path, subfolder, supported=SUPPORTED, where=where)

        transformer = config(LTXVideoTransformer3DModel, TRANSFORMER)
        vae = config(AutoencoderKLLTXVideo, "vae")
        scheduler = config(FlowMatchEulerDiscreteScheduler, "scheduler")
        _check_values(transformer, vae, scheduler, where)
        _check_variant(transformer, vae, scheduler, where)
        statistics = read_tensors(path, "vae", ("latents_mean", "latents_std"), where=where)
        pipeline = str(index["_class_name"])
        conventions = PIPELINES[pipeline]
        spatial, temporal = _compression(vae)
        return LtxFolder(
            path=path,
            traits=self,
            pipeline=pipeline,
            text_dim=int(transformer["caption_channels"]),
            text_length=conventions.text_length,
            latents_mean=tuple(statistics["latents_mean"].float().tolist()),
            latents_std=tuple(statistics["latents_std"].float().tolist()),
            temporal_factor=temporal,
            spatial_factor=spatial,
            scheduler=scheduler,
            scaling_factor=float(vae["scaling_factor"]),
            facts=asdict(conventions),
        )

    def evaluate(
        self,
        transformer: Any,
        noisy: Tensor,
        t: Tensor,
        folder: LtxFolder,
        layout: TokenLayout,
        *,
        autocast: bool,
    ) -> Tensor:
        samples, length = len(noisy), folder.text_length
        text, mask = torch.empty(samples, length, folder.text_dim), torch.empty(samples, length, dtype=torch.bool)
        positions = folder_positions(folder, layout, torch.empty(samples, dtype=torch.float64))
        return predict_velocity(transformer, noisy, t, text, mask, positions, autocast=autocast)

    def split_tokens(self, transformer: Any, group: Group) -> None:
        split_tokens(transformer, group)

    def caption_encoder(
        self, folder: LtxFolder, *, device: torch.device, dtype: torch.dtype, where: str = "path"
    ) -> T5TextEncoder:
        masked = folder.facts["text_masked"]
        return T5TextEncoder(
            T5EncoderModel,
            folder.path,
            length=folder.text_length,
            masked=masked,
            device=device,
            dtype=dtype,
            where=where,
        )

    def text_settings(self, folder: LtxFolder) -> dict[str, str]:
        return {"text_length": str(folder.text_length), "text_masked": str(folder.facts["text_masked"]).lower()}

    def encoder(self, folder: LtxFolder, device: torch.device, dtype: torch.dtype) -> PipelineEncoder:
        where = "model path"
        return PipelineEncoder(
            folder.path,
            family="ltx",
            geometry=self.geometry,
            encoders=self.encoders,
            text=self.caption_encoder(folder, device=device, dtype=dtype, where=where),
            settings={"text_dtype": str(dtype).removeprefix("torch."), **self.text_settings(folder)},
            load_vae=lambda: load_frozen(AutoencoderKLLTXVideo, folder.path, "vae", device=device, where=where),
            device=device,
        )

    def takes_timesteps(self, folder: LtxFolder) -> bool:
        takes: bool = folder.pipeline == LTXConditionPipeline.__name__
        return takes

    def write_tiny(self, out: Path, *, seed: int, variant: str, **sizes: int) -> None:
        write_tiny(out, seed=seed, **sizes)


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels per latent pixel and frames per latent frame, as the VAE itself computes them."""
    halvings = 2 ** sum(vae["spatio_temporal_scaling"])
    spatial = (
        vae["patch_size"] * halvings if vae["spatial_compression_ratio"] is None else vae["spatial_compression_ratio"]
    )
    temporal = (
        vae["patch_size_t"] * halvings
        if vae["temporal_compression_ratio"] is None
        else vae["temporal_compression_ratio"]
    )
    return int(spatial), int(temporal)


def _check_values(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any], where: str
) -> None:
    check_values(
        [
            *whole_numbers(TRANSFORMER, transformer, "caption_channels", "in_channels"),
            *whole_numbers("vae", vae, "latent_channels", "patch_size", "patch_size_t"),
            *noise_axis(scheduler),
            ("vae", vae, "spatio_temporal_scaling", "true or false for every block", _switches),
        ],
        where=where,
    )


def _switches(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, bool) for value in values)


def _check_variant(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any], where: str
) -> None:
    problems = []
    if transformer["in_channels"] != vae["latent_channels"]:
        found = f"its transformer takes {transformer['in_channels']} channels, its VAE makes {vae['latent_channels']}"
        problems.append(Problem(found, where, allowed=f"equal channels: {SUPPORTED}"))
    patches = {key: transformer[key] for key in ("patch_size", "patch_size_t") if transformer[key] != 1}
    if patches:
        found = ", ".join(f"{key} {value}" for key, value in patches.items())
        problems.append(Problem(f"its transformer has {found}", where, allowed=f"1: {SUPPORTED}"))
    if not problems and _compression(vae) != (SIZE_MULTIPLE, FRAMES_DIVISOR):
        spatial, temporal = _compression(vae)
        found = f"its VAE makes one latent of {temporal} frames of {spatial} x {spatial} pixels"
        problems.append(Problem(found, where, allowed=f"8 frames of 32 x 32: {SUPPORTED}"))
    if scheduler.get("_class_name") != FlowMatchEulerDiscreteScheduler.__name__:
        problems.append(
            Problem(
                f"its scheduler is a {scheduler.get('_class_name')}",
                where,
                allowed=FlowMatchEulerDiscreteScheduler.__name__,
            )
        )
    if problems:
        raise ConfigError(problems)
