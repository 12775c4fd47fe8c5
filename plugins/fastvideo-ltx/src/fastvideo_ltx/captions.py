"""Captions' embeddings: who makes them, and how they are padded for the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class CaptionEncoder(Protocol):
    """A generation's text encoder; its weights are loaded at the first caption and can be let go of."""

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the encoder's device."""
        ...

    def module(self) -> nn.Module:
        """The text encoder itself."""
        ...

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        ...


class PromptEmbeddings:
    """Embeddings of captions on the CPU, each encoded once.

    Args:
        encoder: encodes what is missing.
        expected: captions that will be asked for; they are encoded together with the first one that is.
        keep_encoder: whether the encoder's weights stay loaded between captions.
    """

    def __init__(self, encoder: CaptionEncoder, expected: Sequence[str] = (), *, keep_encoder: bool) -> None:
        self._encoder = encoder
        self._expected = tuple(expected)
        self._keep_encoder = keep_encoder
        self._embeddings: dict[str, Tensor] = {}

    def get(self, caption: str) -> Tensor:
        """The embedding [L, D] of a caption, without padding."""
        if caption not in self._embeddings:
            wanted = dict.fromkeys([caption, *self._expected])
            missing = [text for text in wanted if text not in self._embeddings]
            for text, embedding in zip(missing, self._encoder.encode(missing), strict=True):
                self._embeddings[text] = embedding.cpu()
            if not self._keep_encoder:
                self._encoder.free()
        return self._embeddings[caption]


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
