"""The models of an LTX-2 pipeline, frozen, in eval mode."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE
from transformers import (
    Gemma3ForConditionalGeneration,
    Gemma4UnifiedForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fastvideo_diffusers.loading import load_frozen, load_text_model, load_tokenizer

VOCODERS = {kind.__name__: kind for kind in (LTX2Vocoder, LTX2VocoderWithBWE)}
"""By the name that a pipeline's index gives."""

TEXT_ENCODERS = {
    kind.__name__: kind for kind in (Gemma3ForConditionalGeneration, Gemma4UnifiedForConditionalGeneration)
}
"""Likewise: Gemma 3 up to LTX-2.3, Gemma 4 from LTX-2.5 on."""


def load_vae(path: str, *, device: torch.device, where: str = "path") -> AutoencoderKLLTX2Video:
    """The video autoencoder, float32.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the configuration.
    """
    return load_frozen(AutoencoderKLLTX2Video, path, "vae", device=device, where=where)


def load_audio_vae(path: str, *, device: torch.device, where: str = "path") -> AutoencoderKLLTX2Audio:
    """The audio autoencoder, float32; errors as `load_vae`."""
    return load_frozen(AutoencoderKLLTX2Audio, path, "audio_vae", device=device, where=where)


def load_vocoder(path: str, kind: str, *, device: torch.device) -> LTX2Vocoder | LTX2VocoderWithBWE:
    """The vocoder of the class named `kind`, float32; errors as `load_vae`."""
    vocoder: LTX2Vocoder | LTX2VocoderWithBWE = load_frozen(VOCODERS[kind], path, "vocoder", device=device)
    return vocoder


def load_connectors(path: str, *, dtype: torch.dtype, device: torch.device, where: str = "path") -> LTX2TextConnectors:
    """Projection and connectors of the text; errors as `load_vae`."""
    return load_frozen(LTX2TextConnectors, path, "connectors", dtype=dtype, device=device, where=where)


def load_text_encoder(
    path: str, kind: str, *, dtype: torch.dtype, device: torch.device, where: str = "path"
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the Gemma of the class named `kind`; errors as `load_vae`."""
    tokenizer = load_tokenizer(path, where=where, pads=False)
    gemma = load_text_model(TEXT_ENCODERS[kind], path, "text_encoder", dtype=dtype, device=device, where=where)
    return tokenizer, gemma
