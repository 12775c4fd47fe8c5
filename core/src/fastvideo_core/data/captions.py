"""Embeddings of captions: who makes them, and each made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class CaptionEncoder(Protocol):
    """A family's text encoder; its weights are loaded at the first caption and can be let go of."""

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the encoder's device."""
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
