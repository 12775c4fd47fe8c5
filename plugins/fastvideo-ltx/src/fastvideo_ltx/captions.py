"""How captions' embeddings are padded for the network."""

from __future__ import annotations

import torch
from torch import Tensor


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
