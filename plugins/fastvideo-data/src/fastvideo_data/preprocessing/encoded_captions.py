"""Captions on their way into a data set: embedded once each, with what the embedding lacks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fastvideo_data.captions import caption_cut
from fastvideo_data.encoder import LatentEncoder


@dataclass(frozen=True)
class EncodedCaption:
    """A caption's embedding [L, D], and what it lacks of the caption: "kind: details" each."""

    embedding: Tensor
    notes: tuple[str, ...]


def encode_captions(encoder: LatentEncoder, captions: Sequence[str]) -> dict[str, EncodedCaption]:
    """Every distinct caption, encoded."""
    distinct = list(dict.fromkeys(captions))
    embeddings = encoder.encode_texts(distinct) if distinct else []
    cuts = (caption_cut(encoder, caption) for caption in distinct)
    return {
        caption: EncodedCaption(embedding, () if cut is None else (str(cut),))
        for caption, embedding, cut in zip(distinct, embeddings, cuts, strict=True)
    }
