"""Text of networks that read what the encoder makes of padding is stored with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import UMT5EncoderModel

from fastvideo_diffusers.text import T5TextEncoder, pad_text


def encoded(path: Path, *, keeps_padding: bool) -> torch.Tensor:
    more = {"keeps_padding": keeps_padding, "device": torch.device("cpu"), "dtype": torch.float32}
    (found,) = T5TextEncoder(UMT5EncoderModel, str(path), length=24, masked=False, **more).encode(["a red square"])
    return found


def test_padding_is_kept_where_the_network_reads_it_and_padding_again_changes_nothing(tiny_wan: Path) -> None:
    cut, whole = (encoded(tiny_wan, keeps_padding=keeps) for keeps in (False, True))
    assert len(cut) < len(whole) == 24
    torch.testing.assert_close(whole[: len(cut)], cut)
    assert whole[len(cut) :].abs().min(dim=1).values.max() > 0
    padded, mask = pad_text(whole[None], 24)
    torch.testing.assert_close(padded[0], whole)
    assert mask.all()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(pad_text(cut[None], 24)[0][0], whole)
