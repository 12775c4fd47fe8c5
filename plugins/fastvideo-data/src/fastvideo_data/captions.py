"""Embeddings of the prompts of a run: each made once, and a warning for those of which only a part is read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

logger = logging.getLogger(__name__)

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class CaptionCut:
    """A caption of more tokens than its embedding is made of.

    Args:
        tokens: of the whole caption.
        limit: tokens that are read, from its start.
    """

    tokens: int
    limit: int

    def __str__(self) -> str:
        return f"caption cut at {self.limit} tokens: it has {self.tokens}"


@runtime_checkable
class CutsCaptions(Protocol):
    """What a `LatentEncoder` and a `CaptionEncoder` offer besides when they read only so many tokens of a caption."""

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        ...


def caption_cut(encoder: object, caption: str) -> CaptionCut | None:
    """What an encoder cuts off a caption; None when it reads all of it, or does not say."""
    return encoder.caption_cut(caption) if isinstance(encoder, CutsCaptions) else None


def cut_of(tokenizer: Callable[..., Any], text: str, limit: int) -> CaptionCut | None:
    """What a tokenizer of transformers cuts off a text that it cuts at `limit` tokens, special ones included."""
    tokens = len(tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"])
    return CaptionCut(tokens, limit) if tokens > limit else None


class CaptionEncoder(Protocol):
    """A family's text encoder; its weights are loaded at the first caption and can be let go of."""

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the encoder's device."""
        ...

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        ...


_stands_in: list[Tensor] = []


@contextmanager
def standing_in(embedding: Tensor) -> Iterator[None]:
    """Inside, this embedding [L, D] is every caption's, and nothing is encoded: for runs of which shapes alone count."""
    _stands_in.append(embedding)
    try:
        yield
    finally:
        _stands_in.pop()


class PromptEmbeddings:
    """Embeddings of captions on the CPU, each encoded once; a warning names those of which only a part is read.

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
        if _stands_in:
            return _stands_in[-1]
        if caption not in self._embeddings:
            wanted = dict.fromkeys([caption, *self._expected])
            missing = [text for text in wanted if text not in self._embeddings]
            for text, embedding in zip(missing, self._encoder.encode(missing), strict=True):
                self._embeddings[text] = embedding.cpu()
                if (cut := caption_cut(self._encoder, text)) is not None:
                    logger.warning("%s; what comes behind is not seen: %r...", cut, text[:_SHOWN_CHARACTERS])
            if not self._keep_encoder:
                self._encoder.free()
        return self._embeddings[caption]
