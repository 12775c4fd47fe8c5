"""Captions to T5 embeddings, as MochiPipeline makes them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import T5EncoderModel

from fastvideo_diffusers.text import T5TextEncoder
from fastvideo_mochi.folder import MochiFolder


class TextEncoder(T5TextEncoder):
    """T5 with the padding masked; an empty caption is no token at all where the pipeline says so."""

    def __init__(self, folder: MochiFolder, device: torch.device, where: str = "path") -> None:
        dtype = torch.float32
        super().__init__(
            T5EncoderModel, folder.path, length=folder.text_length, device=device, dtype=dtype, where=where
        )
        self._folder = folder

    def encode_one(self, caption: str) -> Tensor:
        if caption == "" and self._folder.blanks_empty:
            return torch.zeros(0, self._folder.text_dim)
        return super().encode_one(caption)
