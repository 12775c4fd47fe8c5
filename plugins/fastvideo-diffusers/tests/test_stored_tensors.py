"""Tensors of a raw batch that a family can and cannot take."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastvideo_core.errors import DataError
from fastvideo_data.raw_batch import place
from fastvideo_diffusers.stored_tensors import stored_latents, stored_loss_mask, stored_text


def batch(**changes: Any) -> dict[str, Any]:
    given = {"vae_latent": torch.ones(2, 4, 3, 2, 6), "text_embedding": torch.ones(2, 5, 8, dtype=torch.bfloat16)}
    return {"info": [{"id": "one"}, {"id": "two"}], **given, **changes}


def test_what_fits_is_given_as_it_is_stored():
    raw = batch()
    assert stored_text(raw, width=8, path="base") is raw["text_embedding"]
    assert torch.equal(stored_latents(raw, channels=4, patch=(2, 3)), raw["vae_latent"])
    assert stored_latents(raw, channels=4, most_frames=2).shape == (2, 4, 2, 2, 6)


@pytest.mark.parametrize(
    ("stored", "messages"),
    [
        (torch.ones(2, 5, 9), ["text_embedding has shape [5, 9]", "[tokens, 8], the width that base takes"]),
        (torch.ones(2, 8), ["text_embedding has shape [8]"]),
        (torch.ones(2, 5, 8, dtype=torch.int32), ["text_embedding has dtype int32", "float64, float32"]),
    ],
)
def test_text_that_does_not_fit_names_the_sample(stored, messages):
    with pytest.raises(DataError) as raised:
        stored_text(batch(text_embedding=stored), width=8, path="base")
    for message in ["batch with sample one", *messages]:
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("stored", "messages"),
    [
        (
            torch.ones(2, 3, 3, 2, 6),
            ["vae_latent has shape [3, 3, 2, 6]", "[4, T, H, W] with H a multiple of 2 and W of 3"],
        ),
        (torch.ones(2, 4, 3, 3, 6), ["vae_latent has shape [4, 3, 3, 6]", "use another VAE"]),
        (torch.ones(2, 4, 3, 2, 5), ["vae_latent has shape [4, 3, 2, 5]"]),
        (torch.ones(2, 4, 3), ["vae_latent has shape [4, 3]"]),
        (torch.ones(2, 4, 3, 2, 6, dtype=torch.uint8), ["vae_latent has dtype uint8"]),
    ],
)
def test_latents_that_do_not_fit_name_the_sample(stored, messages):
    with pytest.raises(DataError) as raised:
        stored_latents(batch(vae_latent=stored), channels=4, patch=(2, 3), fix="use another VAE")
    for message in ["batch with sample one", *messages]:
        assert message in str(raised.value)


def test_without_a_patch_any_height_and_width_fit():
    stored_latents(batch(vae_latent=torch.ones(2, 4, 1, 7, 5)), channels=4)
    with pytest.raises(DataError, match=r"allowed: \[5, T, H, W\]\n"):
        stored_latents(batch(), channels=5)


def test_what_is_not_there_is_told():
    with pytest.raises(DataError, match="the data holds no text_embedding"):
        stored_text({}, width=8, path="base")
    with pytest.raises(DataError, match="captions but no vae_latent"):
        stored_latents({"text_embedding": torch.ones(1, 5, 8)}, channels=4)


@pytest.mark.parametrize(
    ("info", "name"),
    [([{"id": "a", "file_name": "a.mp4"}], " with sample a"), ([{"file_name": "a.mp4"}], " with sample a.mp4")],
)
def test_a_batch_is_named_by_its_first_sample(info, name):
    assert place({"info": info}) == f"training.data_path, batch{name}"
    assert place({"info": []}) == place({}) == place({"info": [{}]}) == "training.data_path"


def test_a_loss_mask_is_that_of_the_latents_that_are_used():
    mask = torch.rand(2, 1, 3, 2, 6, dtype=torch.float16)
    assert stored_loss_mask(batch(), 3, 2, 6) is None
    assert torch.equal(stored_loss_mask(batch(loss_mask=mask), 3, 2, 6), mask)
    assert torch.equal(stored_loss_mask(batch(loss_mask=mask), 2, 2, 6), mask[:, :, :2])


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (torch.ones(2, 1, 2, 2, 6), "loss_mask has shape [1, 2, 2, 6]\n    allowed: [1, 3, 2, 6], as its latents"),
        (torch.ones(2, 1, 3, 6, 2), "loss_mask has shape [1, 3, 6, 2]"),
        (torch.ones(2, 4, 3, 2, 6), "loss_mask has shape [4, 3, 2, 6]"),
        (torch.ones(2, 1, 3, 2, 6, dtype=torch.uint8), "loss_mask has dtype uint8"),
        (-torch.ones(2, 1, 3, 2, 6), "loss_mask holds what is no weight"),
        (torch.full((2, 1, 3, 2, 6), torch.nan), "loss_mask holds what is no weight"),
    ],
)
def test_a_loss_mask_that_does_not_fit_is_refused(stored, message):
    with pytest.raises(DataError) as raised:
        stored_loss_mask(batch(loss_mask=stored), 3, 2, 6)
    assert message in str(raised.value)
    assert "batch with sample one" in str(raised.value)
