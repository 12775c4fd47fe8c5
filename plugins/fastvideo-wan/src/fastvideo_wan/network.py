"""One call of the Wan transformer, in the numerics of the run."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor

from fastvideo_diffusers.sequence_parallel import Group, exchange_heads, share_tokens
from fastvideo_wan.sparse import GATE


class Float32TimestepEmbedding(TimestepEmbedding):  # type: ignore[misc]  # diffusers is untyped
    """The time embedder outside of autocast: what it computes is as sensitive to rounding as its weights are."""

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(sample.device.type, enabled=False):
            embedding: Tensor = super().forward(sample, condition)
            return embedding


def keep_time_embedder_in_float32(transformer: WanTransformer3DModel) -> None:
    """Makes autocast leave the time embedder alone; parameters and their names stay as they are."""
    # The class is swapped rather than `forward` wrapped: a wrapped forward would, in a deep copy, still run the
    # original's weights.
    transformer.condition_embedder.time_embedder.__class__ = Float32TimestepEmbedding


def split_tokens(transformer: WanTransformer3DModel, group: Group) -> None:
    """Makes the processes of a group share the tokens of the network's calls; see `RoleHandle.split_tokens`."""
    share_tokens(transformer, group, first=transformer.blocks[0], last=transformer.proj_out)
    for block in transformer.blocks:
        exchange_heads(block.attn1, group, getattr(block, GATE, None))


def predict_velocity(
    transformer: WanTransformer3DModel,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    *,
    condition: Tensor | None = None,
    features: Tensor | None = None,
    autocast: bool,
) -> Tensor:
    """The network's velocity at x_t, the same call as that of WanPipeline or WanImageToVideoPipeline.

    Args:
        transformer: in bfloat16 it runs natively, as at inference.
        noisy: x_t [B, C, T, H, W].
        t: [B] in [0, num_train_timesteps], or per token [B, tokens].
        text: [B, 512, D].
        condition: mask and latents of the given frames, [B, 20, T, H, W], of networks that take them.
        features: of the given frames, [B, tokens, D] or, of two, [B, 2, tokens, D], of networks that attend to them.
        autocast: compute in bfloat16 although the weights are float32.

    Returns:
        [B, C, T, H, W] in the dtype that was computed in.
    """
    dtype = transformer.dtype
    if condition is not None:
        noisy = torch.cat([noisy, condition], dim=1)
    if features is not None:
        features = features.reshape(-1, *features.shape[-2:]).to(dtype)  # the network puts those of two images together
    with torch.autocast(noisy.device.type, dtype=torch.bfloat16, enabled=autocast and dtype == torch.float32):
        velocity: Tensor = transformer(
            hidden_states=noisy.to(dtype),
            timestep=t,
            encoder_hidden_states=text.to(dtype),
            encoder_hidden_states_image=features,
            return_dict=False,
        )[0]
    return velocity
