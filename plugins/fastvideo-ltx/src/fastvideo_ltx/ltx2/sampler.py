"""From a prompt to a video with sound with any role's transformer, through diffusers' LTX2Pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    LTX2ConditionPipeline,
    LTX2ImageToVideoPipeline,
    LTX2LatentUpsamplePipeline,
    LTX2Pipeline,
)
from diffusers.pipelines.ltx2 import LTX2Vocoder, LTX2VocoderWithBWE
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import (
    DEFAULT_IMAGE_CRF,
    LTX2_5_IMAGE_CRF,
    STAGE_2_DISTILLED_SIGMA_VALUES,
    apply_image_conditioning_crf,
)
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn
from transformers import Gemma4UnifiedForConditionalGeneration

from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_data.prompt_fit import PromptImages
from fastvideo_data.video_sizes import VideoSize
from fastvideo_diffusers.autocast import Autocast
from fastvideo_diffusers.latents import frames_of, shown
from fastvideo_diffusers.sampler import PromptConditions
from fastvideo_ltx.adapter import TEXT, TEXT_MASK, LtxAdapter
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.config import FRAMES_DIVISOR
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video
from fastvideo_ltx.ltx2.adapter import AUDIO, Ltx2Adapter
from fastvideo_ltx.ltx2.latents import audio_length, audio_statistics, pack_audio, unpack_audio, video_statistics
from fastvideo_ltx.ltx2.loading import load_audio_vae, load_vae, load_vocoder
from fastvideo_ltx.ltx2.network import AUDIO_TEXT
from fastvideo_ltx.ltx2.text import Connectors, pad_left
from fastvideo_ltx.sampler import REFINING_STEPS, LtxSampler, half, pil_image, ready_pipeline

PLAIN_GUIDANCE: Mapping[str, Any] = {
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_rescale": 0.0,
    "spatio_temporal_guidance_blocks": None,
}
"""LTX2Pipeline with guidance u + w (c - u) alone, which training knows too."""


class Ltx2Sampler(LtxSampler):
    """Sampling through LTX2Pipeline; see `LtxSampler`. A run on video alone samples without sound."""

    upsampler_class = LTX2LatentUpsamplerModel

    def __init__(self, folder: LtxFolder, *, adapter: LtxAdapter, **settings: Any) -> None:
        super().__init__(folder, adapter=adapter, **settings)
        assert isinstance(adapter, Ltx2Adapter)
        self._connectors = adapter.connectors
        self._has_audio = AUDIO in self.folder.traits.chosen_streams(self.config)
        self._audio_vae: AutoencoderKLLTX2Audio | None = None
        self._vocoder: LTX2Vocoder | LTX2VocoderWithBWE | None = None

    def layout(self, size: VideoSize) -> TokenLayout:
        video = layout_of_video(self.folder, size)
        if not self._has_audio:
            return video
        audio = audio_length(self.folder, size.num_frames, self.adapter.frame_rate)
        return TokenLayout(video.frames, video.height, video.width, audio)

    def initial_noise(self, layout: TokenLayout, generator: torch.Generator) -> Tensor:
        video = super().initial_noise(layout, generator)
        if not layout.audio:
            return video
        shape = (1, self.folder.facts["audio_channels"], layout.audio, self.folder.facts["audio_mel_bins"])
        audio = torch.randn(shape, generator=generator, device=generator.device)
        return torch.cat([video, pack_audio(audio)], dim=1)

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
        images, layout = conditions.images, self.layout(size)
        own: dict[str, Any] = {}
        kind: Any = _Pipeline
        if not images.only_first:
            kind, own["conditions"] = _ConditionPipeline, self._conditions(images)
        elif images.first is not None:  # encoded here, in the VAE's own precision; the pipeline draws the noise
            kind, first = _ImagePipeline, self.encode_image(images.first, size, generator)
            rest = first.new_zeros(1, layout.video - layout.first_frame, first.shape[2])
            own = {"latents": unpack_video(torch.cat([first, rest], dim=1), layout), "noise_scale": 1.0}
        return self._through(
            kind, transformer, conditions, size, own, steps=steps, guidance_scale=guidance_scale, generator=generator
        )

    def refine(
        self,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        small: Tensor,
        *,
        generator: torch.Generator,
    ) -> Tensor:
        layout, images = self.layout(half(size)), conditions.images
        upsample = LTX2LatentUpsamplePipeline(vae=self.autoencoder(), latent_upsampler=self.upsampler())
        large: Tensor = upsample(
            latents=unpack_video(small, layout), latents_normalized=True, output_type="latent", return_dict=False
        )[0]
        own: dict[str, Any] = {"latents": large, "noise_scale": STAGE_2_DISTILLED_SIGMA_VALUES[0]}
        if layout.audio:
            sound = audio_statistics(self.folder).denormalise(small[:, layout.video :])
            own["audio_latents"] = unpack_audio(sound, self.folder.facts["audio_channels"])
        kind: Any = _Pipeline if images.first is None else _ImageRefiner
        if not images.only_first:
            kind, own["conditions"] = _ConditionPipeline, self._conditions(images)
        return self._through(
            kind,
            transformer,
            replace(conditions, negative=None),
            size,
            own,
            steps=REFINING_STEPS,
            guidance_scale=1.0,
            generator=generator,
        )

    def _through(
        self,
        kind: Any,
        transformer: nn.Module,
        conditions: PromptConditions,
        size: VideoSize,
        own: dict[str, Any],
        *,
        steps: int | FewStepSchedule,
        guidance_scale: float,
        generator: torch.Generator,
    ) -> Tensor:
        """What a pipeline of the class `kind`, asked for `own` too, makes: normalised packed latents."""
        network = _Network(transformer, autocast=self.autocast, isolated=not self._has_audio)
        scheduler, timesteps = self.levels(steps)
        if timesteps is not None:
            own = {**own, "sigmas": [t / self.folder.num_train_timesteps for t in timesteps]}
        pipeline = ready_pipeline(
            kind,
            scheduler=scheduler,
            vae=self.autoencoder(),
            audio_vae=self.audio_autoencoder(),
            connectors=_Ready(self._connectors),
            transformer=network,
            vocoder=None,
        )
        embeddings = self._embeddings("", conditions.text, network.dtype)
        if conditions.negative is not None:
            embeddings |= self._embeddings("negative_", conditions.negative, network.dtype)
        calls = steps if isinstance(steps, int) else len(steps)
        video, audio = pipeline(
            **embeddings,
            **self.asked(size, steps=calls, guidance_scale=guidance_scale),
            **own,
            frame_rate=self.adapter.frame_rate,
            audio_guidance_scale=guidance_scale,
            **PLAIN_GUIDANCE,
            generator=generator,
        )
        tokens = pack_video(video)
        return torch.cat([tokens, pack_audio(audio)], dim=1) if self._has_audio else tokens

    @property
    def _image_crf(self) -> int:
        """How strongly the pipeline compresses an image before the VAE sees it, as clips are in training."""
        latest = self.folder.facts["text_encoder"] == Gemma4UnifiedForConditionalGeneration.__name__
        crf: int = LTX2_5_IMAGE_CRF if latest else DEFAULT_IMAGE_CRF
        return crf

    def encode_image(self, image: Tensor, size: VideoSize, generator: torch.Generator) -> Tensor:
        compressed = torch.from_numpy(apply_image_conditioning_crf(image.numpy(), self._image_crf))
        processor = VideoProcessor(vae_scale_factor=self.folder.spatial_factor, resample="bilinear")
        picture = processor.preprocess(pil_image(compressed), size.height, size.width)
        mode = self.autoencoder().encode(picture[:, :, None].to(self.device)).latent_dist.mode()
        return video_statistics(self.folder).normalise(pack_video(mode))

    def _conditions(self, images: PromptImages) -> list[LTX2VideoCondition]:
        """What LTX2ConditionPipeline is asked for to show images; it counts latent frames."""
        frames = [(images.first, 0, 1.0), (images.last, -1, 1.0)]
        frames += [(one, -(-frame // FRAMES_DIVISOR), strength) for one, frame, strength in images.conditions]
        return [
            LTX2VideoCondition(pil_image(one), index=index, strength=strength, crf=self._image_crf)
            for one, index, strength in frames
            if one is not None
        ]

    def decode_tokens(self, latents: Tensor, layout: TokenLayout, generator: torch.Generator) -> SampledVideo:
        video = video_statistics(self.folder).denormalise(latents[:, : layout.video].to(self.device))
        pixels = self.autoencoder().decode(unpack_video(video, layout), None, return_dict=False)[0]
        frames = shown(frames_of(pixels, self.folder)[0])
        fps = self.adapter.frame_rate
        if not layout.audio:
            return SampledVideo(frames, fps)
        sound = self._sound(latents[:, layout.video :].to(self.device), seconds=len(frames) / fps)
        return SampledVideo(frames, fps, audio=sound, sample_rate=self.folder.facts["sound_sample_rate"])

    def load_vae(self) -> AutoencoderKLLTX2Video:
        return load_vae(self.folder.path, device=self.device)

    def audio_autoencoder(self) -> AutoencoderKLLTX2Audio:
        """The audio VAE."""
        if self._audio_vae is None:
            self._audio_vae = load_audio_vae(self.folder.path, device=self.device)
        return self._audio_vae

    def _sound(self, tokens: Tensor, *, seconds: float) -> Tensor:
        """The waveform [2, samples] of normalised audio tokens [1, T, 128], as long as the video: what the decoder leaves
        out at the end is silence."""
        if self._vocoder is None:
            kind = self.folder.facts["vocoder"]
            self._vocoder = load_vocoder(self.folder.path, kind, device=self.device)
        latent = unpack_audio(audio_statistics(self.folder).denormalise(tokens), self.folder.facts["audio_channels"])
        mel = self.audio_autoencoder().decode(latent, return_dict=False)[0]
        waveform = self._vocoder(mel)[0].float().cpu().clamp(-1, 1)
        length = round(seconds * self.folder.facts["sound_sample_rate"])
        return nn.functional.pad(waveform[:, :length], (0, max(length - waveform.shape[1], 0)))

    def _embeddings(self, prefix: str, features: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        padded, mask = pad_left(features[None].to(self.device))
        return {f"{prefix}prompt_embeds": padded.to(dtype), f"{prefix}prompt_attention_mask": mask}


class _Normalised:
    """Of a pipeline whose latents come out normalised, as the network made them."""

    @staticmethod
    def _denormalize_latents(latents: Tensor, *statistics: Any) -> Tensor:
        return latents

    @staticmethod
    def _denormalize_audio_latents(latents: Tensor, *statistics: Any) -> Tensor:
        return latents


class _Pipeline(_Normalised, LTX2Pipeline):  # type: ignore[misc]  # diffusers is untyped
    """From text."""


class _ImageRefiner(_Normalised, LTX2ImageToVideoPipeline):  # type: ignore[misc]  # likewise
    """From un-normalised latents that begin with the given frame."""


class _ImagePipeline(_ImageRefiner):
    """The same from normalised latents: a given frame comes out to the bit."""

    @staticmethod
    def _normalize_latents(latents: Tensor, *statistics: Any) -> Tensor:
        return latents


class _ConditionPipeline(_Normalised, LTX2ConditionPipeline):  # type: ignore[misc]  # likewise
    """From images at any frame."""


class _Ready(nn.Module):
    """Stands where the pipeline has its projection and connectors; takes text that is projected already."""

    def __init__(self, connectors: Connectors) -> None:
        super().__init__()
        self._connectors = connectors

    @property
    def device(self) -> torch.device:
        return self._connectors.device

    def forward(self, features: Tensor, mask: Tensor, padding_side: str) -> tuple[Tensor, Tensor, Tensor]:
        given = self._connectors.connect(features, mask)
        return given[TEXT].to(features.dtype), given[AUDIO_TEXT].to(features.dtype), given[TEXT_MASK]


class _Network(Autocast):
    """A transformer as training runs it: under autocast, or with a video stream that sees nothing of the sound."""

    def __init__(self, transformer: nn.Module, *, autocast: bool, isolated: bool) -> None:
        super().__init__(transformer, enabled=autocast)
        self._isolated = isolated

    @property
    def rope(self) -> Any:
        return self._transformer.rope

    @property
    def audio_rope(self) -> Any:
        return self._transformer.audio_rope

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        kwargs["isolate_modalities"] |= self._isolated
        return super().forward(hidden_states, **kwargs)
