"""Captions to UMT5 embeddings, as WanPipeline makes them."""

from __future__ import annotations

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from fastvideo_diffusers.text import T5TextEncoder
from fastvideo_wan.folder import TEXT_LENGTH


class TextEncoder(T5TextEncoder):
    """The text encoder of a pipeline; embeddings have 512 tokens at most, or the tokenizer's own limit."""

    def __init__(self, path: str, *, device: torch.device, dtype: torch.dtype, where: str = "path") -> None:
        super().__init__(
            UMT5EncoderModel, path, length=TEXT_LENGTH, clean=prompt_clean, device=device, dtype=dtype, where=where
        )

    def longest(self, tokenizer: PreTrainedTokenizerBase) -> int:
        return min(TEXT_LENGTH, int(tokenizer.model_max_length))
