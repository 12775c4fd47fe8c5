"""A random-weight LTX-Video pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

from fastvideo_diffusers.tiny import byte_tokenizer, save_pipeline, seeded, t5_encoder
from fastvideo_ltx.schedule import PUBLISHED_SCHEDULER

LATENT_CHANNELS = 128
MAX_TEXT = 512


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
    with seeded(seed):
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
        text_encoder = t5_encoder(
            T5EncoderModel, T5Config, tokenizer, width=text_dim, layers=text_layers, feed_forward_proj="gated-gelu"
        )
    save_pipeline(
        out,
        "LTXPipeline",
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(**PUBLISHED_SCHEDULER),
    )
