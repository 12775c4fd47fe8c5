"""One call of the LTX-2 transformer, in the numerics of the run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import Tensor

from fastvideo_diffusers.sequence_parallel import Group, exchange_heads, share_heads, share_tokens
from fastvideo_ltx.adapter import FPS, TEXT, TEXT_MASK
from fastvideo_ltx.layout import TokenLayout

AUDIO_TEXT = "audio_text"
"""Conditioning: what the audio stream attends to [B, L, D]."""


def split_tokens(transformer: LTX2VideoTransformer3DModel, group: Group) -> None:
    """Makes the processes of a group share the video tokens of the network's calls; see `RoleHandle.split_tokens`.

    Every process has all of the few audio tokens. What the streams see of each other is computed by heads, too.
    """
    share_tokens(transformer, group, first=transformer.transformer_blocks[0], last=transformer.proj_out)
    for rotary in (transformer.rope, transformer.cross_attn_rope, transformer.cross_attn_audio_rope):
        share_heads(rotary, group)
    for block in transformer.transformer_blocks:
        exchange_heads(block.attn1, group, block.attn1.to_gate_logits)
        of_video, of_audio = block.audio_to_video_attn, block.video_to_audio_attn
        exchange_heads(of_video, group, of_video.to_gate_logits, keys_whole=True)
        exchange_heads(of_audio, group, of_audio.to_gate_logits, queries_whole=True)


def predict_velocity(
    transformer: LTX2VideoTransformer3DModel,
    packed: Tensor,
    t: Tensor,
    inputs: Mapping[str, Tensor],
    layout: TokenLayout,
    *,
    autocast: bool,
) -> Tensor:
    """The network's velocity at x_t, the same call as LTX2Pipeline's.

    Without audio tokens the streams are isolated from each other, as in the pipeline's modality guidance: the video stream
    then depends on no parameter of the audio stream.

    Args:
        transformer: in bfloat16 it runs natively, as at inference.
        packed: x_t [B, S, 128], video tokens, then audio tokens.
        t: [B] or per token [B, S], in [0, num_train_timesteps].
        inputs: `text` [B, L, D], `text_mask` [B, L] and `fps` [B]; with audio tokens also `audio_text` [B, L, D'].
        layout: what the tokens are.
        autocast: compute in bfloat16 although the weights are float32.

    Returns:
        [B, S, 128] in the dtype that was computed in.
    """
    dtype = transformer.dtype
    video, audio = _streams(packed.to(dtype), layout)
    text, mask = inputs[TEXT].to(dtype), inputs[TEXT_MASK]
    isolated = layout.audio == 0
    if isolated:
        # The network has no call without audio: one empty token, which the video cannot see, costs next to nothing.
        audio = video.new_zeros(video.shape[0], 1, transformer.config.audio_in_channels)
        audio_text = text.new_zeros(text.shape[0], 1, audio_text_width(transformer))
    else:
        audio_text = inputs[AUDIO_TEXT].to(dtype)
    video_t, audio_t = (t, t) if t.ndim == 1 or isolated else _streams(t, layout)
    with torch.autocast(packed.device.type, dtype=torch.bfloat16, enabled=autocast and dtype == torch.float32):
        video_velocity, audio_velocity = transformer(
            hidden_states=video,
            audio_hidden_states=audio,
            encoder_hidden_states=text,
            audio_encoder_hidden_states=audio_text,
            timestep=video_t,
            audio_timestep=_level(audio_t) if isolated else audio_t,
            sigma=_level(video_t),
            audio_sigma=_level(audio_t),
            encoder_attention_mask=mask,
            audio_encoder_attention_mask=None if isolated else mask,
            num_frames=layout.frames,
            height=layout.height,
            width=layout.width,
            audio_num_frames=audio.shape[1],
            video_coords=video_positions(transformer, layout, inputs[FPS]),
            isolate_modalities=isolated,
            use_cross_timestep=True,
            return_dict=False,
        )
    return video_velocity if isolated else torch.cat([video_velocity, audio_velocity], dim=1)


def video_positions(transformer: LTX2VideoTransformer3DModel, layout: TokenLayout, fps: Tensor) -> Tensor:
    """Where each video token begins and ends: [B, 3, S, 2] of (seconds, pixels, pixels).

    Args:
        fps: frames per second [B].
    """
    rope = transformer.rope
    bounds: Tensor = rope.prepare_video_coords(
        len(fps), layout.frames, layout.height, layout.width, fps.device, fps=1.0
    )
    bounds[:, 0] /= fps.to(bounds.dtype)[:, None, None]
    return bounds


def _streams(tokens: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """Video and audio tokens of [B, S, ...]."""
    return tokens[:, : layout.video], tokens[:, layout.video :]


def _level(t: Tensor) -> Tensor:
    """The noise level of a stream, [B]: that of its noisiest token, since conditioned tokens are at 0."""
    return t if t.ndim == 1 else t.flatten(1).amax(dim=1)


def text_width(transformer: LTX2VideoTransformer3DModel) -> int:
    """Channels of the text that the video stream takes."""
    config = transformer.config
    width: int = config.caption_channels if config.use_prompt_embeddings else config.cross_attention_dim
    return width


def audio_text_width(transformer: LTX2VideoTransformer3DModel) -> int:
    """Channels of the text that the audio stream takes."""
    config = transformer.config
    width: int = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
    return width


def serves_sound(parameter: str) -> bool:
    """Whether a parameter, by name, serves the sound or what the streams see of each other."""
    return any(word in parameter for word in ("audio", "av_cross", "a2v_cross"))
