"""A random-weight Mochi pipeline, small enough for tests, in the real format: `fastvideo-distill tiny mochi FOLDER`."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from fastvideo_mochi.text import TEXT_LENGTH

TEXT_DIM = 32


def write_tiny(out: Path, *, seed: int = 0, num_layers: int = 2) -> None:
    """A folder that plain `MochiPipeline.from_pretrained` loads; equal arguments give equal files."""
    tokenizer = _character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=num_layers,
            pooled_projection_dim=16,
            text_embed_dim=TEXT_DIM,
            time_embed_dim=4,
        )
        vae = AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        )
        text_encoder = T5EncoderModel(
            T5Config(vocab_size=len(tokenizer), d_model=TEXT_DIM, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
        )
    pipeline = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        force_zeros_for_empty_prompt=True,
    )
    pipeline.save_pretrained(out)


def _character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable character, closed by </s> as T5's tokenizer does."""
    tokens = ["<pad>", "</s>", "<unk>", *string.printable]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )
