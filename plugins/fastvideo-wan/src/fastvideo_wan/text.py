"""Captions to UMT5 embeddings, as WanPipeline makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from fastvideo_data.captions import CaptionCut, cut_of
from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_wan.folder import TEXT_LENGTH
from fastvideo_wan.loading import load_text_encoder


class TextEncoder:
    """The text encoder of a pipeline; its weights are loaded at the first caption and can be let go of.

    Args:
        path: folder or hub id of the pipeline.
        device: where the encoder runs.
        dtype: of its weights.
        where: how errors name the place that gave the path.
    """

    def __init__(self, path: str, *, device: torch.device, dtype: torch.dtype, where: str = "path") -> None:
        self._device = device
        self._models = LazyWeights(lambda: load_text_encoder(path, dtype=dtype, device=device, where=where), device)

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D], L <= 512 (or the tokenizer's own limit), without padding, on the encoder's device.

        One caption at a time, so that an embedding does not depend on which others are encoded with it.
        """
        tokenizer, encoder = self._models.get()
        return [self._encode_one(tokenizer, encoder, caption) for caption in captions]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        tokenizer = self._models.get()[0]
        return cut_of(tokenizer, prompt_clean(caption), _length(tokenizer))

    def module(self) -> UMT5EncoderModel:
        """The text encoder itself."""
        return self._models.get()[1]

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._models.free()

    @torch.no_grad()
    def _encode_one(self, tokenizer: PreTrainedTokenizerBase, encoder: UMT5EncoderModel, caption: str) -> Tensor:
        tokens = tokenizer(
            [prompt_clean(caption)],
            padding="max_length",
            max_length=_length(tokenizer),
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self._device)
        hidden: Tensor = encoder(tokens.input_ids.to(self._device), mask).last_hidden_state[0]
        return hidden[: int(mask.sum())]


def _length(tokenizer: PreTrainedTokenizerBase) -> int:
    return min(TEXT_LENGTH, int(tokenizer.model_max_length))


def pad_text(embedding: Tensor, lengths: Tensor | None = None, *, text_length: int = TEXT_LENGTH) -> Tensor:
    """[B, L, D] as [B, text_length, D]: cut behind so many tokens, zero behind each sample's own length [B]."""
    batch, length, width = embedding.shape
    kept = min(length, text_length)
    padded = embedding.new_zeros(batch, text_length, width)
    padded[:, :kept] = embedding[:, :kept]
    if lengths is not None:
        positions = torch.arange(text_length, device=embedding.device)
        padded.masked_fill_((positions >= lengths.to(embedding.device)[:, None])[..., None], 0)
    return padded
