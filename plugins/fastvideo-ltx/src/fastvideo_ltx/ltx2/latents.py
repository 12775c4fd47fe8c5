"""LTX-2's latents as tokens: the packing of sound, the joining of both streams, and their normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_ltx.folder import LtxFolder


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of an autoencoder's latents, per channel of a token.

    Args:
        mean: 128 numbers.
        std: likewise.
        scale: factor of the normalised latents (the video autoencoder's `scaling_factor`).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0

    def normalise(self, tokens: Tensor) -> Tensor:
        """(z - mean) scale / std, float32; tokens [B, S, 128]."""
        mean, std = (torch.tensor(values, device=tokens.device) for values in (self.mean, self.std))
        return (tokens.float() - mean) * self.scale / std

    def denormalise(self, tokens: Tensor) -> Tensor:
        """z std / scale + mean, float32, in the order of operations that LTX2Pipeline uses; tokens [B, S, 128]."""
        mean, std = (torch.tensor(values, device=tokens.device) for values in (self.mean, self.std))
        return tokens.float() * std / self.scale + mean


def video_statistics(folder: LtxFolder) -> LatentStatistics:
    """Of the video autoencoder."""
    return LatentStatistics(folder.latents_mean, folder.latents_std, folder.scaling_factor)


def audio_statistics(folder: LtxFolder) -> LatentStatistics:
    """Of the audio autoencoder."""
    return LatentStatistics(folder.facts["audio_latents_mean"], folder.facts["audio_latents_std"])


def pack_audio(latents: Tensor) -> Tensor:
    """[B, C, T, M] (M mel bins) as tokens [B, T, C M]: one per moment, channel by channel."""
    return latents.transpose(1, 2).flatten(2)


def unpack_audio(tokens: Tensor, channels: int) -> Tensor:
    """Tokens [B, T, C M] as [B, C, T, M]."""
    batch, moments, width = tokens.shape
    return tokens.reshape(batch, moments, channels, width // channels).transpose(1, 2)


def audio_length(folder: LtxFolder, num_frames: int, fps: float) -> int:
    """How many audio tokens LTX2Pipeline gives to a video: 25 per second with the published models, and at least one.

    Args:
        num_frames: of the video, in pixels' frames.
        fps: frames per second.
    """
    facts = folder.facts
    per_second: float = facts["audio_sample_rate"] / facts["audio_hop_length"] / float(facts["audio_compression"])
    return max(1, round(num_frames / fps * per_second))


def stream_weight(video: int, audio: int, audio_weight: float, device: torch.device) -> Tensor | None:
    """The loss weight of each token [1, S, 1] with which mean(w e) / mean(w) is (V + a A) / (1 + a), V and A the mean losses
    of the streams: a stream counts as a whole, however many tokens it has. None without audio.

    Args:
        video: number of video tokens.
        audio: number of audio tokens.
        audio_weight: a, 0 or more.
    """
    if not audio:
        return None
    total = video + audio
    weights = torch.cat([torch.full((video,), total / video), torch.full((audio,), audio_weight * total / audio)])
    return (weights / (1 + audio_weight)).to(device)[None, :, None]
