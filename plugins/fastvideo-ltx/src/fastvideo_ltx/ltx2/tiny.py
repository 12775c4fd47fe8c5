"""A random-weight LTX-2 pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from tokenizers import processors
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GemmaTokenizer

from fastvideo_diffusers.tiny import save_pipeline, seeded
from fastvideo_ltx.schedule import PUBLISHED_SCHEDULER

TEXT_TOKENS = 1024
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
AUDIO_WIDTH = 128
"""Base width of the audio autoencoder, which is also the number of its latent statistics: 8 channels x 16 mel bins."""


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
    """Writes the pipeline into the empty folder `out`; see `tiny.write_tiny_pipeline`.

    The audio stream is half as wide as the video stream.
    """
    tokenizer = _byte_tokenizer()
    with seeded(seed):
        modules: dict[str, Any] = {
            "transformer": LTX2VideoTransformer3DModel(
                num_layers=num_layers,
                num_attention_heads=num_heads,
                attention_head_dim=head_dim,
                cross_attention_dim=num_heads * head_dim,
                audio_num_attention_heads=num_heads,
                audio_attention_head_dim=head_dim // 2,
                audio_cross_attention_dim=num_heads * head_dim // 2,
                caption_channels=text_dim,
                rope_type="split",
            ),
            "vae": _with_statistics(_video_vae(2 * vae_dim)),
            "audio_vae": _with_statistics(
                AutoencoderKLLTX2Audio(base_channels=AUDIO_WIDTH, ch_mult=(1, 1, 1), num_res_blocks=1)
            ),
            "vocoder": LTX2Vocoder(hidden_channels=32, resnet_kernel_sizes=[3], resnet_dilations=[[1]]),
            "connectors": LTX2TextConnectors(
                caption_channels=text_dim,
                text_proj_in_factor=text_layers + 1,
                video_connector_num_attention_heads=2,
                video_connector_attention_head_dim=text_dim // 2,
                video_connector_num_layers=1,
                audio_connector_num_attention_heads=2,
                audio_connector_attention_head_dim=text_dim // 2,
                audio_connector_num_layers=1,
                rope_type="split",
            ),
            "text_encoder": Gemma3ForConditionalGeneration(_gemma(text_dim, text_layers, tokenizer)),
        }
    save_pipeline(
        out,
        "LTX2Pipeline",
        tokenizer=tokenizer,
        tokenizer_class="GemmaTokenizerFast",  # transformers 4 reads tokenizer.json by this name only; 5 knows both
        scheduler=FlowMatchEulerDiscreteScheduler(**PUBLISHED_SCHEDULER),
        **modules,
    )


def _video_vae(width: int) -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 3,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 4,
        upsample_factor=(1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )


def _with_statistics(vae: nn.Module) -> nn.Module:
    """Latent statistics that a forgotten or swapped normalisation cannot hide behind."""
    mean, std = vae.get_buffer("latents_mean"), vae.get_buffer("latents_std")
    mean.copy_(0.5 * torch.randn(mean.shape))
    std.copy_(0.5 + torch.rand(std.shape))
    return vae


def _gemma(width: int, layers: int, tokenizer: GemmaTokenizer) -> Gemma3Config:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 512,
        "max_position_embeddings": TEXT_TOKENS,
    }
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 28, "patch_size": 14}
    return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)


def _byte_tokenizer() -> GemmaTokenizer:
    """One token per UTF-8 byte behind <bos>: encodes any text without a vocabulary file."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    vocabulary |= {f"<0x{byte:02X}>": len(SPECIAL_TOKENS) + byte for byte in range(256)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return tokenizer
