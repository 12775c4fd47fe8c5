"""Captions to T5 embeddings, as the folder's pipeline makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from fastvideo_data.captions import CaptionCut, cut_of
from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_diffusers.loading import load_text_model, load_tokenizer


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
        self._length = length
        self._masked = masked
        self._device = device

        def load() -> tuple[PreTrainedTokenizerBase, T5EncoderModel]:
            tokenizer = load_tokenizer(path, where=where)
            encoder = load_text_model(T5EncoderModel, path, "text_encoder", dtype=dtype, device=device, where=where)
            return tokenizer, encoder

        self._models = LazyWeights(load, device)

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the encoder's device.

        One caption at a time, so that an embedding does not depend on which others are encoded with it.
        """
        tokenizer, encoder = self._models.get()
        return [self._encode_one(tokenizer, encoder, caption) for caption in captions]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return cut_of(self._models.get()[0], caption, self._length)

    def module(self) -> T5EncoderModel:
        """The text encoder itself."""
        return self._models.get()[1]

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._models.free()

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
