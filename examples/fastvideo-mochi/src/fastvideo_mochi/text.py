"""Captions to T5 embeddings, as MochiPipeline makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import MochiPipeline
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from fastvideo_data.captions import CaptionCut, cut_of
from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_mochi.folder import check_folder, load

TEXT_LENGTH = 256
"""Tokens of a caption; the network is told by a mask which of them are padding."""


class TextEncoder:
    """The text encoder of a pipeline, used through the pipeline's own `encode_prompt`; loaded at the first caption."""

    def __init__(self, path: str, device: torch.device, where: str = "path") -> None:
        self._device = device
        self._pipeline = LazyWeights(lambda: _text_pipeline(path, device, where), device)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D] without padding, on the CPU.

        One at a time: the pipeline blanks a whole batch whose last caption is empty.
        """
        embeddings = []
        for caption in captions:
            hidden, mask, _, _ = self._pipeline.get().encode_prompt(
                caption, do_classifier_free_guidance=False, device=self._device, max_sequence_length=TEXT_LENGTH
            )
            embeddings.append(hidden[0][mask[0].bool()].float().cpu())
        return embeddings

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return cut_of(self._pipeline.get().tokenizer, caption, TEXT_LENGTH)

    def free(self) -> None:
        """Lets go of the weights; the next `encode` loads them again."""
        self._pipeline.free()


def _text_pipeline(path: str, device: torch.device, where: str) -> MochiPipeline:
    index = check_folder(path, where)
    encoder = load(T5EncoderModel, path, "text_encoder", where, use_safetensors=True)
    return MochiPipeline(
        scheduler=None,
        vae=None,
        transformer=None,
        tokenizer=load(AutoTokenizer, path, "tokenizer", where, trust_remote_code=False),
        text_encoder=encoder.to(device).eval().requires_grad_(False),
        force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", False),
    )


def conditioning_of(embedding: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """[B, L, D] of which `lengths` [B] tokens count, as the network takes it: text [B, 256, D], mask [B, 256]."""
    kept = min(embedding.shape[1], TEXT_LENGTH)
    mask = torch.arange(TEXT_LENGTH, device=embedding.device) < lengths.to(embedding.device)[:, None]
    text = embedding.new_zeros(len(embedding), TEXT_LENGTH, embedding.shape[2])
    text[:, :kept] = embedding[:, :kept]
    return {"text": text * mask[..., None], "mask": mask}
