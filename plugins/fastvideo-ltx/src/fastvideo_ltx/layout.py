"""How the tokens of a batch are ordered: [video, frame by frame and row by row | audio]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """The size of packed latents, in latent units.

    Args:
        frames: of the video.
        height: of the video.
        width: of the video.
        audio: number of audio tokens behind the video's; 0 without sound.
    """

    frames: int
    height: int
    width: int
    audio: int = 0

    @property
    def video(self) -> int:
        """Number of video tokens."""
        return self.frames * self.height * self.width

    @property
    def first_frame(self) -> int:
        """Number of tokens of the first latent frame, which come first."""
        return self.height * self.width

    @property
    def total(self) -> int:
        """Number of all tokens."""
        return self.video + self.audio


def pack_video(latents: Tensor) -> Tensor:
    """[B, C, F, H, W] as tokens [B, F H W, C]."""
    return latents.flatten(2).transpose(1, 2)


def unpack_video(tokens: Tensor, layout: TokenLayout) -> Tensor:
    """The video tokens of [B, layout.total, C] as [B, C, F, H, W]."""
    video = tokens[:, : layout.video].transpose(1, 2)
    return video.reshape(*video.shape[:2], layout.frames, layout.height, layout.width)
