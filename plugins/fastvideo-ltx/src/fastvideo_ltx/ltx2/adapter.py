"""How training methods talk to LTX-2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import Problem
from fastvideo_data.raw_batch import place
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.stored_tensors import stored_tensor
from fastvideo_ltx.adapter import LAYOUT, LtxAdapter, PackedLatents
from fastvideo_ltx.batches import data_free_video, frame_rates, stored_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video
from fastvideo_ltx.ltx2.latents import (
    audio_length,
    audio_statistics,
    pack_audio,
    stream_weight,
    unpack_audio,
    video_statistics,
)
from fastvideo_ltx.ltx2.network import predict_velocity
from fastvideo_ltx.ltx2.text import Connectors, pad_left

AUDIO = "audio"
"""Of pipeline_config.streams."""


class Ltx2Adapter(LtxAdapter):
    """Video tokens, then audio tokens [B, S, 128], and Gemma's text behind the connectors; see `LtxAdapter`.

    Training on video alone has no audio tokens, and no gradient reaches a parameter of the audio stream.
    """

    def __init__(self, folder: LtxFolder, *, config: LtxConfig, **settings: Any) -> None:
        super().__init__(folder, config=config, **settings)
        dtype = torch.bfloat16 if self.autocast else torch.float32
        self.connectors = Connectors(folder.path, device=self.device, dtype=dtype)
        self._has_audio = AUDIO in folder.traits.chosen_streams(config)

    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        return self.connectors.connect(*pad_left(embeddings, lengths))

    def stored_latents(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> PackedLatents:
        stored = stored_video(raw_batch, self.folder, training)
        tokens = pack_video(stored).to(self.device, torch.float32, non_blocking=True)
        normalised = raw_batch.get("vae_latent_normalised", False)
        streams = [tokens if normalised else video_statistics(self.folder).normalise(tokens)]
        layout = TokenLayout(*stored.shape[2:])
        if self._has_audio:
            sound = stored_audio(raw_batch, self.folder)[
                :, :, : audio_tokens(raw_batch, self.folder, layout, self.config)
            ]
            tokens = pack_audio(sound).to(self.device, torch.float32, non_blocking=True)
            normalised = raw_batch.get("audio_latent_normalised", False)
            streams.append(tokens if normalised else audio_statistics(self.folder).normalise(tokens))
            layout = replace(layout, audio=tokens.shape[1])
        return PackedLatents(torch.cat(streams, dim=1), layout, self.data_free_weight(layout))

    def unpack_latents(self, latents: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        found, layout = super().unpack_latents(latents, batch), batch.extras[LAYOUT]
        if layout.audio:
            sound = latents[:, layout.video :]
            found["audio_latent"] = unpack_audio(sound, self.folder.facts["audio_channels"])
        return found

    def data_free_layout(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> TokenLayout:
        layout = data_free_video(raw_batch, self.folder, training)
        audio = audio_tokens(raw_batch, self.folder, layout, self.config) if self._has_audio else 0
        return replace(layout, audio=audio)

    def data_free_weight(self, layout: TokenLayout) -> Tensor | None:
        return stream_weight(layout.video, layout.audio, self.config.audio_loss_weight, self.device)

    def token_velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        t: Tensor,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
    ) -> Tensor:
        transformer: Any = handle.modules[TRANSFORMER]
        return predict_velocity(transformer, noisy, t, inputs, layout, autocast=self.autocast)


def audio_tokens(raw_batch: Mapping[str, Any], folder: LtxFolder, layout: TokenLayout, config: LtxConfig) -> int:
    """Audio tokens of the shortest clip of the batch: frame rates may differ, lengths may not."""
    fastest = float(frame_rates(raw_batch, folder.traits.frame_rate(config), 1).max())
    return audio_length(folder, (layout.frames - 1) * folder.temporal_factor + 1, fastest)


def stored_audio(raw_batch: Mapping[str, Any], folder: LtxFolder) -> Tensor:
    """`audio_latent` [B, C, T, M] as it is stored.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    channels, mel_bins = folder.facts["audio_channels"], folder.facts["audio_mel_bins"]
    return stored_tensor(
        raw_batch,
        "audio_latent",
        fits=lambda stored: (
            stored.ndim == 4 and (stored.shape[1], stored.shape[3]) == (channels, mel_bins) and stored.shape[2] > 0
        ),
        allowed=f"[{channels}, T, {mel_bins}]",
        fix="preprocess the videos with this pipeline's audio VAE",
        absent=Problem(
            "the data holds no audio_latent",
            place(raw_batch),
            fix="train on the clips with sound (preprocess puts them into with_sound/), or set "
            "pipeline_config.streams: [video]",
        ),
    )
