"""A random-weight Wan pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from fastvideo_core.errors import Problem
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.tiny import byte_tokenizer, check_sizes, save_pipeline, seeded, t5_encoder
from fastvideo_wan.config import FRAMES_DIVISOR
from fastvideo_wan.folder import IMAGE_PIPELINE, PIPELINE, TRANSFORMER_2
from fastvideo_wan.image_conditions import IMAGE_ENCODER, image_channels
from fastvideo_wan.tiny_image_encoder import (
    IMAGE_PROCESSOR_ENTRY,
    NO_IMAGE_ENCODER,
    TOKENS,
    WIDTH,
    tiny_image_encoder,
    write_image_processor,
)

Variant = Literal["t2v", "i2v", "flf2v", "a14b", "i2v_a14b", "ti2v"]
LATENT_CHANNELS = 16
BOUNDARY_RATIOS = {"a14b": 0.875, "i2v_a14b": 0.9}
"""Of Wan2.2-T2V-A14B and Wan2.2-I2V-A14B as they are published."""
LATENTS_MEAN = (
    0.61, -0.34, 1.12, -0.87, 0.05, -1.41, 0.73, 0.29, -0.52, 1.64, -0.18, 0.94, -1.07, 0.41, -0.66, 0.13,
)  # fmt: skip
LATENTS_STD = (
    1.31, 2.45, 0.82, 1.97, 3.06, 1.14, 2.21, 0.95, 1.58, 2.73, 1.43, 0.77, 2.08, 1.86, 1.22, 2.59,
)  # fmt: skip

TI2V_CHANNELS = 48
TI2V_VAE = {
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "dim_mult": [1, 2, 2, 2],
}
"""What the autoencoder of Wan2.2-TI2V-5B, as it is published, has of its own."""


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
    variant: Variant = "t2v",
) -> None:
    """Writes a pipeline folder that plain `DiffusionPipeline.from_pretrained` loads; equal arguments give equal bytes.

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
        variant: `t2v` (Wan 2.1), `i2v` (Wan 2.1 image-to-video), `flf2v` (Wan 2.1, first and last frame), `a14b` (Wan 2.2
            T2V-A14B: two transformers and their boundary), `i2v_a14b` (Wan 2.2 I2V-A14B) or `ti2v` (Wan 2.2 TI2V-5B: an
            autoencoder of 48 channels, and a noise level for every token).

    Raises:
        ConfigError: for options that make no Wan, or a folder that is not empty.
    """
    out = Path(out)
    counts = {"num_layers": num_layers, "num_heads": num_heads, "ffn_dim": ffn_dim}
    counts |= {"text_layers": text_layers, "vae_dim": vae_dim}
    more = []
    if head_dim < 6 or head_dim % 2:
        more.append(Problem(f"is {head_dim}", where="head_dim", allowed="even numbers from 6 on"))
    if scheduler not in ("euler", "unipc"):
        more.append(Problem(f"is {scheduler!r}", where="scheduler", allowed="euler, unipc"))
    if variant not in get_args(Variant):
        more.append(Problem(f"is {variant!r}", where="variant", allowed=", ".join(get_args(Variant))))
    check_sizes(out, at_least_one=counts, multiples={"text_dim": (text_dim, 8)}, more=more)
    tokenizer = byte_tokenizer(max_length=512)
    takes_images, attends_to_images = variant in ("i2v", "flf2v", "i2v_a14b"), variant in ("i2v", "flf2v")
    channels = TI2V_CHANNELS if variant == "ti2v" else LATENT_CHANNELS
    means = [LATENTS_MEAN[channel % 16] + channel // 16 / 8 for channel in range(channels)]
    deviations = [LATENTS_STD[channel % 16] + channel // 16 / 8 for channel in range(channels)]

    def transformer() -> WanTransformer3DModel:
        network = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=num_heads,
            attention_head_dim=head_dim,
            in_channels=channels + takes_images * image_channels(channels, FRAMES_DIVISOR),
            out_channels=channels,
            image_dim=WIDTH if attends_to_images else None,
            added_kv_proj_dim=num_heads * head_dim if attends_to_images else None,
            pos_embed_seq_len=2 * TOKENS if variant == "flf2v" else None,
            text_dim=text_dim,
            freq_dim=256,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )
        if variant == "flf2v":
            nn.init.normal_(network.condition_embedder.image_embedder.pos_embed)  # zeros tell nothing
        return network

    with seeded(seed):
        networks = {TRANSFORMER: transformer()}
        vae = AutoencoderKLWan(
            base_dim=vae_dim,
            z_dim=channels,
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=means,
            latents_std=deviations,
            **(TI2V_VAE if variant == "ti2v" else {"dim_mult": [1, 1, 1, 1]}),
        )
        text_encoder = t5_encoder(UMT5EncoderModel, UMT5Config, tokenizer, width=text_dim, layers=text_layers)
        if variant in BOUNDARY_RATIOS:
            networks[TRANSFORMER_2] = transformer()
        image_encoder = {IMAGE_ENCODER: tiny_image_encoder()} if attends_to_images else {}
    schedule = (
        FlowMatchEulerDiscreteScheduler(shift=flow_shift)
        if scheduler == "euler"
        else UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift, num_train_timesteps=1000
        )
    )
    settings: dict[str, Any] = {"boundary_ratio": BOUNDARY_RATIOS[variant]} if variant in BOUNDARY_RATIOS else {}
    if variant == "ti2v":
        settings["expand_timesteps"] = True
    if takes_images:
        settings |= IMAGE_PROCESSOR_ENTRY if attends_to_images else NO_IMAGE_ENCODER
    save_pipeline(
        out,
        IMAGE_PIPELINE if takes_images else PIPELINE,
        settings=settings,
        **networks,
        **image_encoder,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=schedule,
    )
    if attends_to_images:
        write_image_processor(out)
