"""How training methods talk to Mochi: its conventions end here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core import FlowMatchingAdapter, RoleHandle, TrainingBatch, features_of
from fastvideo_core.errors import DataError, Problem
from fastvideo_mochi.folder import TRANSFORMER
from fastvideo_mochi.latents import LatentScale
from fastvideo_mochi.text import conditioning_of


class MochiAdapter(FlowMatchingAdapter):
    """Latents are [B, 12, T, H, W], the conditioning {"text": [B, 256, D], "mask": [B, 256]}; t is one level per sample.

    Args:
        flow_shift: the run's one timestep shift.
        scale: of the latents.
        negative: embedding [L, D] of the empty prompt.
        device: where the networks are.
        autocast: compute in bfloat16.
    """

    def __init__(
        self, flow_shift: float, scale: LatentScale, negative: Tensor, device: torch.device, *, autocast: bool
    ) -> None:
        super().__init__(flow_shift)
        self._scale = scale
        self._device = device
        self._autocast = autocast
        self._negative = conditioning_of(negative[None].to(device), torch.tensor([len(negative)]))

    def prepare_batch(
        self,
        raw_batch: Mapping[str, Any],
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: Any = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """Rows of the data set as the network takes them.

        Raises:
            DataError: the data has no latents.
        """
        if "vae_latent" not in raw_batch:
            fix = "make it with `fastvideo-distill preprocess --family mochi`"
            raise DataError(Problem("the data has no vae_latent", "training.data_path", fix=fix))
        latents = raw_batch["vae_latent"].to(self._device, torch.float32)
        if latents_source == "zeros":
            latents = torch.zeros_like(latents)
        elif not raw_batch.get("vae_latent_normalised", False):
            latents = self._scale.normalise(latents)
        text = raw_batch["text_embedding"].to(self._device, torch.float32)
        conditioning = conditioning_of(text, raw_batch["text_embedding_length"])
        negative = {name: value.expand_as(conditioning[name]) for name, value in self._negative.items()}
        return TrainingBatch(latents, conditioning, negative)

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: Any = "dense",
    ) -> Tensor:
        """The velocity noise - x0. Mochi's time runs from noise to data: it takes 1000 - t and gives x0 - noise."""
        conditioning = batch.conditioning if conditional else batch.negative_conditioning
        assert conditioning is not None
        transformer: Any = handle.modules[TRANSFORMER]
        level = t.reshape(-1).expand(len(noisy_latents)).to(noisy_latents.device)
        with torch.autocast(noisy_latents.device.type, torch.bfloat16, enabled=self._autocast):
            towards_data: Tensor = transformer(
                hidden_states=noisy_latents.to(transformer.dtype),
                timestep=self.num_train_timesteps - level,
                encoder_hidden_states=conditioning["text"].to(transformer.dtype),
                encoder_attention_mask=conditioning["mask"],
                return_dict=False,
            )[0]
        return -towards_data

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """The video tokens behind the middle and the last block, each [B, tokens, channels]."""
        return features_of(
            _feature_blocks(handle),
            lambda: self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional),
        )

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        config: Any = handle.modules[TRANSFORMER].config
        return (config.num_attention_heads * config.attention_head_dim,) * len(_feature_blocks(handle))


def _feature_blocks(handle: RoleHandle) -> list[nn.Module]:
    transformer: Any = handle.modules[TRANSFORMER]
    blocks = list(transformer.transformer_blocks)
    return [blocks[index] for index in sorted({len(blocks) // 2, len(blocks) - 1})]
