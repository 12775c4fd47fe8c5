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
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from tokenizers import processors
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GemmaTokenizer,
)

from fastvideo_diffusers.tiny import save_pipeline, seeded
from fastvideo_ltx.schedule import PUBLISHED_SCHEDULER

TEXT_TOKENS = 1024
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
VARIANTS = ("ltx2", "ltx23", "ltx25")
AUDIO_WIDTH = 128
"""Base width of the audio autoencoder, which is also the number of its latent statistics: 8 channels x 16 mel bins."""
_RESNETS: dict[str, Any] = {"resnet_kernel_sizes": [3], "resnet_dilations": [[1]]}
_TRANSFORMER_23 = {
    "gated_attn": True,
    "audio_gated_attn": True,
    "cross_attn_mod": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
}
_TRANSFORMER_25 = {"ff_bias": False, "use_prompt_adaln_single": False, "use_keyframes_abs_pos_embedding": True}


def write_tiny(
    out: Path,
    *,
    seed: int,
    variant: str,
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
    width = num_heads * head_dim
    later, latest = variant != "ltx2", variant == "ltx25"
    widths = {"video": width, "audio": width // 2} if later else {"video": text_dim, "audio": text_dim}
    with seeded(seed):
        modules: dict[str, Any] = {
            "transformer": LTX2VideoTransformer3DModel(
                num_layers=num_layers,
                num_attention_heads=num_heads,
                attention_head_dim=head_dim,
                cross_attention_dim=width,
                audio_num_attention_heads=num_heads,
                audio_attention_head_dim=head_dim // 2,
                audio_cross_attention_dim=width // 2,
                caption_channels=text_dim,
                rope_type="split",
                **(_TRANSFORMER_23 if later else {}),
                **(_TRANSFORMER_25 if latest else {}),
            ),
            "vae": _with_statistics(_video_vae(2 * vae_dim)),
            "audio_vae": _with_statistics(
                AutoencoderKLLTX2Audio(base_channels=AUDIO_WIDTH, ch_mult=(1, 1, 1), num_res_blocks=1)
            ),
            "vocoder": _wide_vocoder() if later else LTX2Vocoder(hidden_channels=32, **_RESNETS),
            "connectors": LTX2TextConnectors(
                caption_channels=text_dim,
                text_proj_in_factor=text_layers + 1,
                video_connector_num_attention_heads=2,
                video_connector_attention_head_dim=widths["video"] // 2,
                video_connector_num_layers=1,
                audio_connector_num_attention_heads=2,
                audio_connector_attention_head_dim=widths["audio"] // 2,
                audio_connector_num_layers=1,
                rope_type="split",
                video_gated_attn=later,
                audio_gated_attn=later,
                per_modality_projections=later,
                **{f"{stream}_hidden_dim": one for stream, one in widths.items()},
            ),
            "text_encoder": (_gemma4 if latest else _gemma3)(text_dim, text_layers, tokenizer),
        }
        if latest:
            dims = {f"{stream}_cross_attention_dim": one for stream, one in widths.items()}
            modules["duration_head"] = LTX2DurationHead(pooler_hidden_dim=8, mlp_hidden_dim=8, **dims)
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


def _wide_vocoder() -> LTX2VocoderWithBWE:
    """One that widens the sound to 48 kHz."""
    wide = {f"bwe_{name}": value for name, value in _RESNETS.items()}
    vocoder = LTX2VocoderWithBWE(hidden_channels=64, bwe_hidden_channels=32, **_RESNETS, **wide)
    for name, buffer in vocoder.named_buffers():
        if name.endswith("_basis"):  # of published folders; diffusers leaves zeros
            buffer.copy_(torch.rand(buffer.shape) / buffer.shape[-1])
    return vocoder


def _text(width: int, layers: int, tokenizer: GemmaTokenizer) -> dict[str, Any]:
    return {
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


def _gemma3(width: int, layers: int, tokenizer: GemmaTokenizer) -> Gemma3ForConditionalGeneration:
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 28, "patch_size": 14}
    text = _text(width, layers, tokenizer)
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))


def _gemma4(width: int, layers: int, tokenizer: GemmaTokenizer) -> Gemma4UnifiedForConditionalGeneration:
    text = _text(width, layers, tokenizer) | {
        "global_head_dim": 8,
        "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"],
    }
    vision = {"mm_embed_dim": 8, "mm_posemb_size": 8, "output_proj_dims": 8, "patch_size": 2}
    return Gemma4UnifiedForConditionalGeneration(
        Gemma4UnifiedConfig(text_config=text, vision_config=vision, audio_config={"audio_embed_dim": 8})
    )


def _byte_tokenizer() -> GemmaTokenizer:
    """One token per UTF-8 byte behind <bos>: encodes any text without a vocabulary file."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    vocabulary |= {f"<0x{byte:02X}>": len(SPECIAL_TOKENS) + byte for byte in range(256)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return tokenizer
