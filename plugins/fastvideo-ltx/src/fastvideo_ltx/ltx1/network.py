"""One call of the LTX-Video transformer, in the numerics of the run."""

from __future__ import annotations

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from fastvideo_diffusers.sequence_parallel import Group, exchange_heads, share_heads, share_tokens
from fastvideo_ltx.layout import TokenLayout


def token_positions(
    layout: TokenLayout, frame_rates: Tensor, *, temporal_factor: int, spatial_factor: int, causal: bool
) -> Tensor:
    """Where each token's patch starts, [B, 3, S] float32: seconds, and pixels from the top and from the left.

    Args:
        frame_rates: frames per second of each sample [B].
        causal: the first latent frame stands for one frame, so that latent frame f starts at frame 8 f - 7 (LTX-Video 0.9.5
            and later); else at 8 f.
    """
    device = frame_rates.device
    grid = torch.meshgrid(
        torch.arange(layout.frames, device=device),
        torch.arange(layout.height, device=device),
        torch.arange(layout.width, device=device),
        indexing="ij",
    )
    frames, rows, columns = (axis.reshape(1, -1).float() for axis in grid)
    rates = frame_rates.double()[:, None]
    if causal:  # the order of operations is the pipelines', each of which rounds its own factor
        seconds = (frames * temporal_factor + 1 - temporal_factor).clamp(min=0) * (1.0 / rates).float()
    else:
        seconds = frames * (temporal_factor / rates).float()
    pixels = torch.stack([rows * spatial_factor, columns * spatial_factor], dim=1)
    return torch.cat([seconds[:, None], pixels.expand(len(seconds), -1, -1)], dim=1)


def split_tokens(transformer: LTXVideoTransformer3DModel, group: Group) -> None:
    """Makes the processes of a group share the tokens of the network's calls; see `RoleHandle.split_tokens`."""
    share_tokens(transformer, group, first=transformer.transformer_blocks[0], last=transformer.proj_out)
    share_heads(transformer.rope, group)
    for block in transformer.transformer_blocks:
        exchange_heads(block.attn1, group)


def predict_velocity(
    transformer: LTXVideoTransformer3DModel,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    text_mask: Tensor,
    positions: Tensor,
    *,
    autocast: bool,
) -> Tensor:
    """The network's velocity at x_t, the same call as the pipelines'.

    Args:
        transformer: in bfloat16 it runs natively, as at inference.
        noisy: x_t [B, S, C].
        t: [B] or [B, S], in [0, num_train_timesteps].
        text: [B, L, D].
        text_mask: [B, L] bool.
        positions: [B, 3, S].
        autocast: compute in bfloat16 although the weights are float32.

    Returns:
        [B, S, C] in the dtype that was computed in.
    """
    dtype = transformer.dtype
    noisy, text = noisy.to(dtype), text.to(dtype)
    with torch.autocast(noisy.device.type, dtype=torch.bfloat16, enabled=autocast and dtype == torch.float32):
        velocity: Tensor = transformer(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=t,
            encoder_attention_mask=text_mask,
            video_coords=positions,
            return_dict=False,
        )[0]
    return velocity
