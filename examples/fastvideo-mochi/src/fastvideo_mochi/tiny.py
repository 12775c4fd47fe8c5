"""A random-weight Mochi pipeline, small enough for tests, in the real format: `fastvideo-distill tiny mochi FOLDER`."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiTransformer3DModel
from transformers import T5Config, T5EncoderModel

from fastvideo_diffusers.tiny import byte_tokenizer, check_sizes, save_pipeline, seeded, t5_encoder
from fastvideo_mochi.folder import TEXT_LENGTH

TEXT_DIM = 32


def write_tiny(out: Path, *, seed: int = 0, num_layers: int = 2) -> None:
    """A folder that plain `MochiPipeline.from_pretrained` loads; equal arguments give equal files."""
    check_sizes(out, at_least_one={"num_layers": num_layers}, multiples={}, more=[])
    tokenizer = byte_tokenizer(max_length=TEXT_LENGTH)
    with seeded(seed):
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
        text_encoder = t5_encoder(T5EncoderModel, T5Config, tokenizer, width=TEXT_DIM, layers=2)
    save_pipeline(
        out,
        "MochiPipeline",
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        settings={"force_zeros_for_empty_prompt": True},
    )
