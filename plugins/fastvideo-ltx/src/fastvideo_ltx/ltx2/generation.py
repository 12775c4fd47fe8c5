"""LTX-2 as a generation of LTX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2VideoTransformer3DModel,
)
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import LATENT_DOWNSAMPLE_FACTOR
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.utils import DEFAULT_NEGATIVE_PROMPT
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_diffusers.folder import TRANSFORMER, check_values, read_config, read_tensors, whole_numbers
from fastvideo_diffusers.pipeline_files import DAMAGED
from fastvideo_diffusers.sequence_parallel import Group
from fastvideo_ltx.adapter import FPS, TEXT, TEXT_MASK
from fastvideo_ltx.config import FRAMES_DIVISOR, SIZE_MULTIPLE, LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.generation import Generation
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.lora_formats import LTX2_FORMATS
from fastvideo_ltx.ltx2.adapter import AUDIO, Ltx2Adapter, audio_tokens, stored_audio
from fastvideo_ltx.ltx2.encoder import ENCODERS, Ltx2Encoder
from fastvideo_ltx.ltx2.loading import TEXT_ENCODERS, VOCODERS
from fastvideo_ltx.ltx2.network import (
    AUDIO_TEXT,
    audio_text_width,
    predict_velocity,
    serves_sound,
    split_tokens,
    text_width,
)
from fastvideo_ltx.ltx2.sampler import Ltx2Sampler
from fastvideo_ltx.ltx2.text import TEXT_LENGTH, GemmaCaptions
from fastvideo_ltx.ltx2.tiny import VARIANTS, write_tiny

SUPPORTED = "LTX-2 in diffusers format (for example Lightricks/LTX-2)"
STATISTICS = ("latents_mean", "latents_std")
AUDIO_SCHEDULER = "audio_scheduler"


class Ltx2(Generation):
    """LTX-2 (2.0, 2.3, 2.5): video and sound in two streams that see each other, Gemma text."""

    name = "LTX-2"
    variants = VARIANTS
    supported = SUPPORTED
    pipelines = ("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline")
    components = (
        TRANSFORMER, "vae", "audio_vae", "vocoder", "connectors", "text_encoder", "tokenizer", "scheduler",
    )  # fmt: skip
    weighted = (TRANSFORMER, "vae", "audio_vae", "vocoder", "connectors", "text_encoder")
    encoders = ENCODERS
    decoders: ClassVar[Mapping[str, Any]] = {"vae": AutoencoderKLLTX2Video, "audio_vae": AutoencoderKLLTX2Audio}
    tokenizer_pads = False
    streams = ("video", AUDIO)
    takes_sigmas = True
    unguided = (
        "guidance_scale=1.0, audio_guidance_scale=1.0, stg_scale=0.0, audio_stg_scale=0.0, modality_scale=1.0, "
        "audio_modality_scale=1.0, guidance_rescale=0.0, audio_guidance_rescale=0.0"
    )
    transformer = LTX2VideoTransformer3DModel
    block = LTX2VideoTransformerBlock
    adapter = Ltx2Adapter
    sampler = Ltx2Sampler
    lora_formats = LTX2_FORMATS
    geometry = VideoGeometry(
        frames_divisor=FRAMES_DIVISOR,
        frames_remainder=1,
        size_multiple=SIZE_MULTIPLE,
        fps=24.0,
        least_size=2 * SIZE_MULTIPLE,  # the decoder pads by reflection, which takes two latent rows and columns
    )
    size = VideoSize(height=512, width=768, num_frames=121)
    # diffusers' copy of the one in Lightricks/LTX-2, packages/ltx-trainer/src/ltx_trainer/config.py
    negative_prompt = DEFAULT_NEGATIVE_PROMPT

    def frozen(self, config: LtxConfig) -> Callable[[str], bool] | None:
        """Whatever serves the sound, in a run on video alone: no decay and no gradient of zeros may move it."""
        return None if AUDIO in self.chosen_streams(config) else serves_sound

    def text_models(self, folder: LtxFolder) -> Mapping[str, Any]:
        return {"text_encoder": TEXT_ENCODERS[folder.facts["text_encoder"]], "connectors": LTX2TextConnectors}

    def read(self, path: str, index: Mapping[str, Any], *, where: str) -> LtxFolder:
        def config(kind: Any, subfolder: str) -> dict[str, Any]:
            return read_config(kind, path, subfolder, supported=SUPPORTED, where=where)

        text_encoder, vocoder = (_class_name(index, name) for name in ("text_encoder", "vocoder"))
        _check_index(text_encoder, vocoder, where)
        transformer = config(LTX2VideoTransformer3DModel, TRANSFORMER)
        vae = config(AutoencoderKLLTX2Video, "vae")
        audio_vae = config(AutoencoderKLLTX2Audio, "audio_vae")
        connectors = config(LTX2TextConnectors, "connectors")
        sound = config(VOCODERS[vocoder], "vocoder")
        if (stated := sound.get("_class_name")) not in (None, vocoder):
            found = f"vocoder/ is an {stated}, but its index says {vocoder}"
            raise ConfigError(Problem(found, where, allowed="one class in both", fix=DAMAGED))
        scheduler = config(FlowMatchEulerDiscreteScheduler, "scheduler")
        if _class_name(index, AUDIO_SCHEDULER) not in ("None", "nothing"):
            _check_audio_scheduler(config(FlowMatchEulerDiscreteScheduler, AUDIO_SCHEDULER), scheduler, where)
        _check_values(transformer, vae, audio_vae, connectors, sound, where)
        _check_variant(transformer, vae, audio_vae, where)
        video_statistics = _statistics(path, "vae", where)
        audio_statistics = _statistics(path, "audio_vae", where)
        return LtxFolder(
            path=path,
            traits=self,
            pipeline=str(index["_class_name"]),
            text_dim=_text_width(connectors),
            text_length=TEXT_LENGTH,
            latents_mean=video_statistics[0],
            latents_std=video_statistics[1],
            temporal_factor=_compression(vae, "temporal"),
            spatial_factor=_compression(vae, "spatial"),
            scheduler=scheduler,
            scaling_factor=float(vae["scaling_factor"]),
            facts={
                "audio_latents_mean": audio_statistics[0],
                "audio_latents_std": audio_statistics[1],
                "audio_channels": audio_vae["latent_channels"],
                "audio_mel_bins": audio_vae["mel_bins"] // LATENT_DOWNSAMPLE_FACTOR,
                "audio_sample_rate": audio_vae["sample_rate"],
                "audio_hop_length": audio_vae["mel_hop_length"],
                "audio_compression": LATENT_DOWNSAMPLE_FACTOR,
                "text_encoder": text_encoder,
                "vocoder": vocoder,
                "sound_sample_rate": sound["output_sampling_rate"],
            },
        )

    def check_latents(
        self, row: Mapping[str, Any], folder: LtxFolder, config: LtxConfig, training: TrainingArgs
    ) -> None:
        super().check_latents(row, folder, config, training)
        if AUDIO in self.chosen_streams(config):
            stored_audio(row, folder)

    def layout(
        self, row: Mapping[str, Any], folder: LtxFolder, config: LtxConfig, training: TrainingArgs, *, stored: bool
    ) -> TokenLayout:
        layout = super().layout(row, folder, config, training, stored=stored)
        if AUDIO not in self.chosen_streams(config):
            return layout
        audio = audio_tokens(row, folder, layout, config)
        return replace(layout, audio=min(audio, stored_audio(row, folder).shape[2]) if stored else audio)

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
        samples, dtype = len(noisy), torch.bfloat16 if autocast else torch.float32
        widths = {TEXT: text_width(transformer), AUDIO_TEXT: audio_text_width(transformer)}
        inputs = {name: torch.empty(samples, TEXT_LENGTH, width, dtype=dtype) for name, width in widths.items()}
        inputs[TEXT_MASK] = torch.empty(samples, TEXT_LENGTH, dtype=torch.int64)
        inputs[FPS] = torch.empty(samples, dtype=torch.float64)
        return predict_velocity(transformer, noisy, t, inputs, layout, autocast=autocast)

    def split_tokens(self, transformer: Any, group: Group) -> None:
        split_tokens(transformer, group)

    def caption_encoder(
        self, folder: LtxFolder, *, device: torch.device, dtype: torch.dtype, where: str = "path"
    ) -> GemmaCaptions:
        return GemmaCaptions(folder.path, folder.facts["text_encoder"], device=device, dtype=dtype, where=where)

    def export_notes(self, folder: LtxFolder, config: LtxConfig) -> list[str]:
        if AUDIO in self.chosen_streams(config):
            return []
        note = f"it was trained on video alone; {folder.pipeline} makes sound too, which the video then sees"
        return [f"{note}: `fastvideo-distill sample` with streams: [video] samples as in training"]

    def encoder(self, folder: LtxFolder, device: torch.device, dtype: torch.dtype) -> Ltx2Encoder:
        text = self.caption_encoder(folder, device=device, dtype=dtype, where="model path")
        return Ltx2Encoder(folder, text=text, text_dtype=dtype, device=device)

    def write_tiny(self, out: Path, *, seed: int, variant: str, **sizes: int) -> None:
        write_tiny(out, seed=seed, variant=variant, **sizes)


def _class_name(index: Mapping[str, Any], component: str) -> str:
    entry = index.get(component)
    return str(entry[1]) if isinstance(entry, list | tuple) and len(entry) == 2 else "nothing"


def _check_index(text_encoder: str, vocoder: str, where: str) -> None:
    found = (("text encoder", text_encoder, TEXT_ENCODERS), ("vocoder", vocoder, VOCODERS))
    if unknown := [
        Problem(f"its {what} is {kind}", where, allowed=f"{' or '.join(known)}: {SUPPORTED}")
        for what, kind, known in found
        if kind not in known
    ]:
        raise ConfigError(unknown)


def _check_audio_scheduler(audio: Mapping[str, Any], video: Mapping[str, Any], where: str) -> None:
    """Video and sound are at one noise level in training, and in the pipelines that copy `scheduler` for the sound."""
    if others := {key: value for key, value in audio.items() if not key.startswith("_") and value != video.get(key)}:
        found = "its audio_scheduler/ has " + ", ".join(f"{key} {value}" for key, value in others.items())
        allowed = "what scheduler/ has: video and sound are trained and sampled at one noise level"
        fix = f"copy scheduler/ to {AUDIO_SCHEDULER}/, or set {AUDIO_SCHEDULER} to [null, null] in model_index.json"
        raise ConfigError(Problem(found, where, allowed=allowed, fix=fix))


def _statistics(path: str, subfolder: str, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    tensors = read_tensors(path, subfolder, STATISTICS, where=where)
    mean, std = (tuple(tensors[name].float().tolist()) for name in STATISTICS)
    return mean, std


def _text_width(connectors: Mapping[str, Any]) -> int:
    if connectors["per_modality_projections"]:
        return int(connectors["video_hidden_dim"]) + int(connectors["audio_hidden_dim"])
    return int(connectors["caption_channels"])


def _compression(vae: Mapping[str, Any], axis: str) -> int:
    """Pixels per latent pixel, or frames per latent frame, as the VAE itself computes them."""
    given = vae[f"{axis}_compression_ratio"]
    if given is not None:
        return int(given)
    patch = vae["patch_size" if axis == "spatial" else "patch_size_t"]
    return int(patch * 2 ** sum(vae["spatio_temporal_scaling"]))


def _check_values(
    transformer: Mapping[str, Any],
    vae: Mapping[str, Any],
    audio_vae: Mapping[str, Any],
    connectors: Mapping[str, Any],
    vocoder: Mapping[str, Any],
    where: str,
) -> None:
    check_values(
        [
            *whole_numbers(TRANSFORMER, transformer, "in_channels", "audio_in_channels", "patch_size", "patch_size_t"),
            *whole_numbers("vae", vae, "latent_channels", "patch_size", "patch_size_t"),
            *whole_numbers("audio_vae", audio_vae, "latent_channels", "mel_bins", "sample_rate", "mel_hop_length"),
            *whole_numbers("connectors", connectors, "caption_channels", "video_hidden_dim", "audio_hidden_dim"),
            *whole_numbers("vocoder", vocoder, "output_sampling_rate"),
        ],
        where=where,
    )


def _check_variant(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], audio_vae: Mapping[str, Any], where: str
) -> None:
    problems = []
    audio_width = audio_vae["latent_channels"] * (audio_vae["mel_bins"] // LATENT_DOWNSAMPLE_FACTOR)
    widths = {transformer["in_channels"], transformer["audio_in_channels"], vae["latent_channels"], audio_width}
    if len(widths) != 1:
        found = (
            f"its transformer takes tokens of {transformer['in_channels']} (video) and "
            f"{transformer['audio_in_channels']} (audio) channels, its autoencoders make {vae['latent_channels']} and "
            f"{audio_width}"
        )
        problems.append(Problem(found, where, allowed=f"one number of channels everywhere: {SUPPORTED}"))
    patches = ("patch_size", "patch_size_t", "audio_patch_size", "audio_patch_size_t")
    others = ", ".join(f"{key} {transformer[key]}" for key in patches if transformer[key] != 1)
    if others:
        problems.append(Problem(f"its transformer has {others}", where, allowed=f"1: {SUPPORTED}"))
    if vae["timestep_conditioning"]:
        problems.append(Problem("its VAE decodes with timesteps", where, allowed=f"one that does not: {SUPPORTED}"))
    if problems:
        raise ConfigError(problems)
