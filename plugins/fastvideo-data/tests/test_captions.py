from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fastvideo_data.captions import CaptionCut, PromptEmbeddings, caption_cut, cut_of


class Words:
    """Reads eight words of a caption."""

    loaded = True

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        self.loaded = True
        return [torch.zeros(min(8, len(caption.split())), 2) for caption in captions]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        assert self.loaded
        return cut_of(lambda text, **_: {"input_ids": text.split()}, caption, 8)

    def free(self) -> None:
        self.loaded = False


def test_a_caption_at_the_limit_is_not_cut_and_one_above_is() -> None:
    assert caption_cut(Words(), "word " * 8) is None
    assert caption_cut(Words(), "word " * 9) == CaptionCut(tokens=9, limit=8)
    assert caption_cut(object(), "word " * 9) is None  # it does not say


@pytest.mark.parametrize("keep_encoder", [False, True])
def test_prompts_of_which_only_a_part_is_read_are_named_once(caplog: pytest.LogCaptureFixture, keep_encoder) -> None:
    prompts = PromptEmbeddings(Words(), ["bad", "two\x1b[31m " * 20], keep_encoder=keep_encoder)
    with caplog.at_level(logging.WARNING):
        prompts.get("a short one")
        prompts.get("two\x1b[31m " * 20)
    (message,) = caplog.messages
    assert message.startswith("caption cut at 8 tokens: it has 20; what comes behind is not seen: 'two\\x1b[31m two")
    assert "\x1b" not in message
