"""A random-weight Wan 2.1 pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import diffusers
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_wan.quiet import no_progress_bars

LATENT_CHANNELS = 16
LATENTS_MEAN = (
    0.61, -0.34, 1.12, -0.87, 0.05, -1.41, 0.73, 0.29, -0.52, 1.64, -0.18, 0.94, -1.07, 0.41, -0.66, 0.13,
)  # fmt: skip
LATENTS_STD = (
    1.31, 2.45, 0.82, 1.97, 3.06, 1.14, 2.21, 0.95, 1.58, 2.73, 1.43, 0.77, 2.08, 1.86, 1.22, 2.59,
)  # fmt: skip

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")


def write_tiny_pipeline(
    out: Path,
    *,
    seed: int = 0,
    num_layers: int = 2,
    num_heads: int = 2,
    head_dim: int = 12,
    ffn_dim: int = 32,
    text_dim: int = 32,
    text_layers: int = 2,
    vae_dim: int = 3,
    flow_shift: float = 3.0,
    scheduler: Literal["euler", "unipc"] = "euler",
) -> None:
    """Writes a pipeline folder that plain `WanPipeline.from_pretrained` loads; equal arguments give equal bytes.

    Args:
        out: the folder; created, must be empty or absent.
        seed: of all weights; the global random state is left as it was.
        num_layers: transformer blocks.
        num_heads: attention heads of the transformer.
        head_dim: width of a head; even, at least 6 (rotary embedding over time, height and width).
        ffn_dim: width of the transformer's feed-forward layers.
        text_dim: width of the text encoder; a multiple of 8.
        text_layers: layers of the text encoder.
        vae_dim: base width of the autoencoder.
        flow_shift: written into the scheduler's config.
        scheduler: `euler` (FlowMatchEulerDiscreteScheduler) or `unipc` (UniPCMultistepScheduler, as Wan is published).

    Raises:
        ConfigError: for options that make no Wan, or a folder that is not empty.
    """
    out = Path(out)
    counts = {"num_layers": num_layers, "num_heads": num_heads, "ffn_dim": ffn_dim}
    counts |= {"text_layers": text_layers, "vae_dim": vae_dim}
    _check(out, counts, head_dim=head_dim, text_dim=text_dim, scheduler=scheduler)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=num_heads,
            attention_head_dim=head_dim,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            text_dim=text_dim,
            freq_dim=256,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )
        vae = AutoencoderKLWan(
            base_dim=vae_dim,
            z_dim=LATENT_CHANNELS,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=list(LATENTS_MEAN),
            latents_std=list(LATENTS_STD),
        )
        text_encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=len(tokenizer),
                d_model=text_dim,
                d_kv=8,
                d_ff=37,
                num_layers=text_layers,
                num_heads=text_dim // 8,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    schedule = (
        FlowMatchEulerDiscreteScheduler(shift=flow_shift)
        if scheduler == "euler"
        else UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift, num_train_timesteps=1000
        )
    )
    save_pipeline(
        out,
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=schedule,
    )


def save_pipeline(
    out: Path,
    *,
    transformer: WanTransformer3DModel,
    vae: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    scheduler: FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler,
) -> None:
    """Writes the parts as a folder that plain `WanPipeline.from_pretrained` loads, with transformers 4 and 5."""
    with no_progress_bars():
        transformer.save_pretrained(out / "transformer")
        vae.save_pretrained(out / "vae")
        text_encoder.save_pretrained(out / "text_encoder")
    _save_tokenizer(tokenizer, out / "tokenizer")
    scheduler.save_pretrained(out / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, closed by </s> as T5's tokenizers do: encodes any text without a vocabulary file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    tokenizer.save_pretrained(out)
    # transformers 5 writes a class name that transformers 4 does not know; this one both do.
    config_file = out / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check(out: Path, counts: Mapping[str, int], *, head_dim: int, text_dim: int, scheduler: str) -> None:
    problems = []
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problems.append(Problem("is not an empty folder", where=str(out), fix="name a new folder"))
    problems += [Problem(f"is {value}", where=name, allowed="1 or more") for name, value in counts.items() if value < 1]
    if head_dim < 6 or head_dim % 2:
        problems.append(Problem(f"is {head_dim}", where="head_dim", allowed="even numbers from 6 on"))
    if text_dim < 8 or text_dim % 8:
        problems.append(Problem(f"is {text_dim}", where="text_dim", allowed="multiples of 8"))
    if scheduler not in ("euler", "unipc"):
        problems.append(Problem(f"is {scheduler!r}", where="scheduler", allowed="euler, unipc"))
    if problems:
        raise ConfigError(problems)
