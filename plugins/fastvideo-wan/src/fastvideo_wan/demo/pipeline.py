"""The demo's Wan 2.1 pipeline: a trained autoencoder, a random transformer, and a text encoder that tells words apart."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from fastvideo_diffusers.quiet import no_progress_bars
from fastvideo_diffusers.tiny import closed, save_pipeline, seeded, t5_encoder
from fastvideo_wan.tiny import LATENT_CHANNELS

TEXT_DIM = 64
TEXT_LENGTH = 8
"""Tokens of a caption, its closing one included: six words fit. A real Wan attends to 512, nearly all of them padding."""


def write_demo_pipeline(out: Path, words: tuple[str, ...], *, seed: int = 0, layers: int = 4, width: int = 128) -> None:
    """Writes a pipeline folder that plain `WanPipeline.from_pretrained` loads; equal arguments give equal bytes.

    Args:
        out: the folder, which is created.
        words: every word of the captions; others are one unknown word to the text encoder.
        seed: of the random weights; the global random state is left as it was.
        layers, width: of the transformer; the width is a multiple of 8.
    """
    tokenizer = _word_tokenizer(words)
    with seeded(seed):
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=4,
            attention_head_dim=width // 4,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            text_dim=TEXT_DIM,
            freq_dim=256,
            ffn_dim=4 * width,
            num_layers=layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )
        text_encoder = t5_encoder(
            UMT5EncoderModel, UMT5Config, tokenizer, width=TEXT_DIM, layers=1, d_kv=16, d_ff=128, num_heads=4
        )
    save_pipeline(
        Path(out),
        "WanPipeline",
        transformer=transformer,
        vae=trained_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def trained_vae() -> AutoencoderKLWan:
    """The autoencoder of this package, in float32; `demo_training/train_vae.py` in the repository made it."""
    with as_file(files(__package__) / "vae") as folder, no_progress_bars():
        vae: AutoencoderKLWan = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32)
        return vae


def _word_tokenizer(words: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """One token per word, closed by </s> as T5's tokenizers do."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return closed(tokenizer, vocabulary, max_length=TEXT_LENGTH)
