"""Captions to T5 embeddings, as the folder's pipeline makes them."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from fastvideo_ltx.loading import load_text_model, load_tokenizer


class T5Captions:
    """The T5 encoder of a pipeline; its weights are loaded at the first caption and can be let go of.

    Args:
        path: folder or hub id of the pipeline.
        length: tokens that a caption is padded or cut to.
        masked: whether T5 itself is kept from the padding, or only the transformer is.
        device: where the encoder runs.
        dtype: of its weights.
        where: how errors name the place that gave the path.
    """

    def __init__(
        self, path: str, *, length: int, masked: bool, device: torch.device, dtype: torch.dtype, where: str
    ) -> None:
        self._path = path
        self._length = length
        self._masked = masked
        self._device = device
        self._dtype = dtype
        self._where = where
        self._loaded: tuple[PreTrainedTokenizerBase, T5EncoderModel] | None = None

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the encoder's device.

        One caption at a time, so that an embedding does not depend on which others are encoded with it.
        """
        tokenizer, encoder = self._models()
        return [self._encode_one(tokenizer, encoder, caption) for caption in captions]

    def module(self) -> T5EncoderModel:
        """The text encoder itself."""
        return self._models()[1]

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._loaded = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _models(self) -> tuple[PreTrainedTokenizerBase, T5EncoderModel]:
        if self._loaded is None:
            tokenizer = load_tokenizer(self._path, where=self._where)
            encoder = load_text_model(
                T5EncoderModel,
                self._path,
                "text_encoder",
                dtype=self._dtype,
                device=self._device,
                where=self._where,
            )
            self._loaded = tokenizer, encoder
        return self._loaded

    @torch.no_grad()
    def _encode_one(self, tokenizer: PreTrainedTokenizerBase, encoder: T5EncoderModel, caption: str) -> Tensor:
        tokens = tokenizer(
            [caption],
            padding="max_length",
            max_length=self._length,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.bool().to(self._device) if self._masked else None
        hidden: Tensor = encoder(tokens.input_ids.to(self._device), attention_mask=mask)[0][0]
        return hidden[: int(tokens.attention_mask.sum())]
