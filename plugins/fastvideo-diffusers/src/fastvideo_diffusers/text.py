"""Captions to stored embeddings, and stored embeddings as a network takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fastvideo_data.captions import CaptionCut, cut_of
from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_diffusers.loading import load_text_model, load_tokenizer


class T5TextEncoder:
    """A T5 or UMT5 encoder of a pipeline; its weights are loaded at the first caption and can be let go of.

    Args:
        kind: its class in transformers.
        path: folder or hub id of the pipeline, whose sub-folders tokenizer/ and text_encoder/ are read.
        length: tokens that a caption is padded or cut to.
        masked: whether the encoder itself is kept from the padding; else only the transformer may be.
        keeps_padding: whether the transformer reads what the encoder makes of the padding: it is stored with the caption then.
        clean: from a caption to what is tokenized.
        device: where the encoder runs.
        dtype: of its weights.
        where: how errors name the place that gave the path.
    """

    def __init__(
        self,
        kind: Any,
        path: str,
        *,
        length: int,
        masked: bool = True,
        keeps_padding: bool = False,
        clean: Callable[[str], str] = str,
        device: torch.device,
        dtype: torch.dtype,
        where: str = "path",
    ) -> None:
        self._length = length
        self._masked = masked
        self._keeps_padding = keeps_padding
        self._clean = clean
        self._device = device

        def load() -> tuple[PreTrainedTokenizerBase, Any]:
            tokenizer = load_tokenizer(path, where=where)
            encoder = load_text_model(kind, path, "text_encoder", dtype=dtype, device=device, where=where)
            return tokenizer, encoder

        self._models = LazyWeights(load, device)

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D], without padding unless it is kept, on the encoder's device.

        One caption at a time, so that an embedding does not depend on which others are encoded with it.
        """
        return [self.encode_one(caption) for caption in captions]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        tokenizer = self._models.get()[0]
        return cut_of(tokenizer, self._clean(caption), self.longest(tokenizer))

    def module(self) -> Any:
        """The text encoder itself."""
        return self._models.get()[1]

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._models.free()

    def longest(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Tokens that a caption is padded or cut to with this tokenizer."""
        return self._length

    @torch.no_grad()
    def encode_one(self, caption: str) -> Tensor:
        """One caption's embedding [L, D]."""
        tokenizer, encoder = self._models.get()
        tokens = tokenizer(
            [self._clean(caption)],
            padding="max_length",
            max_length=self.longest(tokenizer),
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.bool().to(self._device) if self._masked else None
        hidden: Tensor = encoder(tokens.input_ids.to(self._device), attention_mask=mask)[0][0]
        return hidden if self._keeps_padding else hidden[: int(tokens.attention_mask.sum())]


def pad_text(embedding: Tensor, length: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """[B, L, D] as ([B, length, D], mask [B, length]): cut behind `length` tokens, zero behind each sample's own length.

    Args:
        lengths: tokens of each sample [B]; None is L for all.
    """
    batch, given, width = embedding.shape
    kept = min(given, length)
    padded = embedding.new_zeros(batch, length, width)
    padded[:, :kept] = embedding[:, :kept]
    own = torch.full((batch,), given) if lengths is None else lengths
    mask = torch.arange(length, device=embedding.device) < own.to(embedding.device)[:, None]
    return padded.masked_fill_(~mask[..., None], 0), mask
