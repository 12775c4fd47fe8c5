"""How training methods talk to LTX-Video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.latents import normalise
from fastvideo_diffusers.text import pad_text
from fastvideo_ltx.adapter import FPS, TEXT, TEXT_MASK, LtxAdapter, PackedLatents
from fastvideo_ltx.batches import data_free_video, stored_video
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout, pack_video
from fastvideo_ltx.ltx1.network import predict_velocity, token_positions


class LtxVideoAdapter(LtxAdapter):
    """Video tokens [B, F H W, 128] and T5 text; see `LtxAdapter`."""

    def text_conditioning(self, embeddings: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        text, mask = pad_text(embeddings, self.folder.text_length, lengths)
        return {TEXT: text, TEXT_MASK: mask}

    def stored_latents(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> PackedLatents:
        stored = stored_video(raw_batch, self.folder, training)
        latents = stored.to(self.device, torch.float32, non_blocking=True)
        if not raw_batch.get("vae_latent_normalised", False):
            latents = normalise(latents, self.folder)
        return PackedLatents(pack_video(latents), TokenLayout(*latents.shape[2:]))

    def data_free_layout(self, raw_batch: Mapping[str, Any], training: TrainingArgs) -> TokenLayout:
        return data_free_video(raw_batch, self.folder, training)

    def token_velocity(
        self,
        handle: RoleHandle,
        noisy: Tensor,
        t: Tensor,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
    ) -> Tensor:
        transformer: Any = handle.modules[TRANSFORMER]
        positions = folder_positions(self.folder, layout, inputs[FPS])
        text, mask = inputs[TEXT], inputs[TEXT_MASK]
        return predict_velocity(transformer, noisy, t, text, mask, positions, autocast=self.autocast)


def folder_positions(folder: LtxFolder, layout: TokenLayout, frame_rates: Tensor) -> Tensor:
    """`token_positions` as the folder's transformer was trained with them."""
    return token_positions(
        layout,
        frame_rates,
        temporal_factor=folder.temporal_factor,
        spatial_factor=folder.spatial_factor,
        causal=folder.facts["causal_positions"],
    )
