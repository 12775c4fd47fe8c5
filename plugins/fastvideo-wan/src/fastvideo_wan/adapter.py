"""How training methods talk to Wan 2.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import AttentionKind, LatentsSource
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.stored_tensors import stored_text
from fastvideo_wan.batches import data_free_shape, stored_latents
from fastvideo_wan.folder import WanFolder
from fastvideo_wan.latents import normalise
from fastvideo_wan.network import predict_velocity
from fastvideo_wan.text import pad_text

TEXT = "text"


class WanAdapter(FlowMatchingAdapter):
    """Every primitive, over latents [B, 16, T, H, W] and the conditioning {"text": [B, 512, D]}; t is [B].

    Args:
        folder: the base pipeline's facts.
        flow_shift: the run's one flow shift.
        device: where batches go.
        training: its sizes crop the latents of the data, and shape those of data-free training; where it names none, the
            data's latents do.
        autocast: compute in bfloat16 where a network's weights are float32.
        prompts: embeddings of captions; asked on_train_start.
        negative_prompt: in full.
    """

    supported_attention: tuple[AttentionKind, ...] = ("dense",)
    """The values of `attn_kind` that this family can do."""

    def __init__(
        self,
        folder: WanFolder,
        *,
        flow_shift: float,
        device: torch.device,
        training: TrainingArgs,
        autocast: bool,
        prompts: PromptEmbeddings,
        negative_prompt: str,
    ) -> None:
        super().__init__(flow_shift, folder.num_train_timesteps)
        self._folder = folder
        self._device = device
        self._training = training
        self._autocast = autocast
        self._prompts = prompts
        self._negative_prompt = negative_prompt
        self._negative_text: Tensor | None = None
        self._empty_text: Tensor | None = None

    # --- batches ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Encodes the negative prompt and the empty text, once."""
        if self._negative_text is None:
            self._negative_text, self._empty_text = self._encoded(self._negative_prompt), self._encoded("")

    def _encoded(self, caption: str) -> Tensor:
        embedding = self._prompts.get(caption).to(self._device, torch.float32)
        return pad_text(embedding[None], text_length=self._folder.text_length)

    def prepare_batch(
        self,
        raw_batch: Mapping[str, Any],
        *,
        current_vsa_sparsity: float = 0.0,
        latents_source: LatentsSource = "data",
        generator: torch.Generator | None = None,
    ) -> TrainingBatch:
        """Normalised float32 latents and float32 text, padded as at inference.

        Args:
            raw_batch: `text_embedding` [B, L, D] with `text_embedding_length` [B], and for "data" `vae_latent`
                [B, 16, T, H, W] with `vae_latent_normalised`.

        Raises:
            DataError: something is missing from the data or has a shape that Wan cannot take.
            ConfigError: sparse attention is asked for, or the sizes that "zeros" needs are missing or contradict.
        """
        if current_vsa_sparsity > 0:
            raise _dense_only(f"a VSA sparsity of {current_vsa_sparsity}")
        text = self._text(raw_batch)
        if latents_source == "zeros":
            shape = data_free_shape(raw_batch, self._folder, self._training)
            latents = torch.zeros(text.shape[0], *shape, device=self._device)
        else:
            latents = self._latents(raw_batch)
        negative, empty = self._negative_text, self._empty_text
        return TrainingBatch(
            latents=latents,
            conditioning={TEXT: text},
            negative_conditioning=None if negative is None else {TEXT: negative.expand_as(text)},
            dropped_conditioning=None if empty is None else {TEXT: empty.expand_as(text)},
            extras={"info": raw_batch.get("info", [])},
        )

    def _text(self, raw_batch: Mapping[str, Any]) -> Tensor:
        text = stored_text(raw_batch, width=self._folder.text_dim, path=self._folder.path)
        text = text.to(self._device, torch.float32, non_blocking=True)
        lengths = raw_batch.get("text_embedding_length")
        return pad_text(text, lengths, text_length=self._folder.text_length)

    def _latents(self, raw_batch: Mapping[str, Any]) -> Tensor:
        stored = stored_latents(raw_batch, self._folder, self._training)
        latents = stored.to(self._device, torch.float32, non_blocking=True)
        return latents if raw_batch.get("vae_latent_normalised", False) else normalise(latents, self._folder)

    # --- the network ------------------------------------------------------------------------------------------------

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        """The velocity that the role's network predicts, in the dtype that it computes in.

        Args:
            t: [B], or one value for all; Wan 2.1 takes one noise level per sample.

        Raises:
            ConfigError: `attn_kind` is not dense.
            ValueError: `conditional=False` before the negative prompt was encoded, or t differs inside a sample.
        """
        if attn_kind not in self.supported_attention:
            raise _dense_only(f"attn_kind '{attn_kind}'")
        text = batch.conditioning[TEXT] if conditional else self._negative(batch)
        levels = _one_per_sample(t, noisy_latents)
        return predict_velocity(handle.modules[TRANSFORMER], noisy_latents, levels, text, autocast=self._autocast)

    def extract_features(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, conditional: bool
    ) -> list[Tensor]:
        """The outputs [B, tokens, channels] of the blocks at a third, two thirds and the end of the transformer."""
        return features_of(
            _feature_blocks(handle),
            lambda: self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional),
        )

    def feature_channels(self, handle: RoleHandle) -> tuple[int, ...]:
        """The transformer's width, once per feature map."""
        config: Any = handle.modules[TRANSFORMER].config
        return (config.num_attention_heads * config.attention_head_dim,) * len(_feature_blocks(handle))

    @staticmethod
    def _negative(batch: TrainingBatch) -> Tensor:
        if batch.negative_conditioning is None:
            raise ValueError(
                "the batch has no negative conditioning: the negative prompt is encoded by on_train_start(), which "
                "must run before prepare_batch()"
            )
        return batch.negative_conditioning[TEXT]


def _feature_blocks(handle: RoleHandle) -> list[nn.Module]:
    transformer: Any = handle.modules[TRANSFORMER]
    blocks = list(transformer.blocks)
    return [blocks[i] for i in sorted({len(blocks) // 3, 2 * len(blocks) // 3, len(blocks) - 1})]


def _one_per_sample(t: Tensor, latents: Tensor) -> Tensor:
    levels = t.to(latents.device)
    if levels.numel() == 1:
        return levels.reshape(1).expand(latents.shape[0])
    if levels.numel() == levels.shape[0] == latents.shape[0]:
        return levels.reshape(-1)
    raise ValueError(
        f"t has shape {list(t.shape)} for latents {list(latents.shape)}: Wan 2.1 takes one noise level per sample, [B]"
    )


def _dense_only(asked: str) -> ConfigError:
    return ConfigError(
        Problem(
            f"{asked} asks for sparse attention",
            where="family 'wan'",
            allowed="attn_kind: dense with VSA sparsity 0; this family has dense attention only",
        )
    )


__all__ = ["TEXT", "WanAdapter"]
