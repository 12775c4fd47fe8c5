"""A random-weight LTX-Video pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

from fastvideo_ltx.quiet import no_progress_bars
from fastvideo_ltx.tiny_tokenizer import byte_tokenizer, save_tokenizer

LATENT_CHANNELS = 128
MAX_TEXT = 512

DYNAMIC_SHIFT = {
    "use_dynamic_shifting": True,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "shift_terminal": 0.1,
}
"""The scheduler of the published pipelines."""


def write_tiny(
    out: Path,
    *,
    seed: int,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    text_dim: int,
    text_layers: int,
    vae_dim: int,
) -> None:
    """Writes the pipeline into the empty folder `out`; see `tiny.write_tiny_pipeline`."""
    tokenizer = byte_tokenizer(max_length=MAX_TEXT)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = LTXVideoTransformer3DModel(
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_attention_heads=num_heads,
            attention_head_dim=head_dim,
            cross_attention_dim=num_heads * head_dim,
            num_layers=num_layers,
            caption_channels=text_dim,
        )
        vae = AutoencoderKLLTXVideo(
            latent_channels=LATENT_CHANNELS,
            block_out_channels=(vae_dim,) * 4,
            decoder_block_out_channels=(vae_dim,) * 4,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        )
        vae.latents_mean.copy_(torch.randn(LATENT_CHANNELS))
        vae.latents_std.copy_(0.5 + torch.rand(LATENT_CHANNELS))
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=text_dim,
                d_kv=8,
                d_ff=37,
                num_layers=text_layers,
                num_heads=text_dim // 8,
                feed_forward_proj="gated-gelu",
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    with no_progress_bars():
        transformer.save_pretrained(out / "transformer")
        vae.save_pretrained(out / "vae")
        text_encoder.save_pretrained(out / "text_encoder")
    save_tokenizer(tokenizer, out / "tokenizer")
    FlowMatchEulerDiscreteScheduler(**DYNAMIC_SHIFT).save_pretrained(out / "scheduler")
    write_index(out, "LTXPipeline")


def write_index(out: Path, pipeline: str) -> None:
    """Writes model_index.json of a folder that the pipeline class `pipeline` loads."""
    index: dict[str, Any] = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
