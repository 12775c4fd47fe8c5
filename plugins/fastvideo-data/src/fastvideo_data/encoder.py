"""What a model family offers to `preprocess`: how it encodes videos, captions and sound, and what identifies its encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from fastvideo_data.video_sizes import VideoGeometry


@runtime_checkable
class LatentEncoder(Protocol):
    """A family's encoders, as `preprocess` calls them.

    One that reads only so many tokens of a caption says so: see `CutsCaptions`. One that encodes sound is an `AudioEncoder`.
    """

    @property
    def geometry(self) -> VideoGeometry:
        """The clip sizes that encode_videos accepts."""
        ...

    def describe(self) -> dict[str, str]:
        """What identifies the encoding: the model's identity, and latents_normalised as "true" or "false".

        `X_normalised` says so of latents X that are not like the others, and of tensors X that only this family knows.
        It is stored with the data; folders whose description differs are never mixed.
        """
        ...

    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """Encode clips of one size; another call may bring another size, and images are clips of one frame.

        Args:
            frames: uint8 RGB [B, T, H, W, 3].

        Returns:
            per clip, the tensors to store by name: "vae_latent" [C, T', H', W'], and whatever else the family wants to have
            beside it (first-frame latents, image embeddings, trajectory states, ...), under any name of lower-case letters,
            digits and _. All clips have the same ones. Families ask for them by name: see `fastvideo_data.data_set`.
        """
        ...

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Encode captions.

        Returns:
            per caption, its embedding [L, D] without padding.
        """
        ...


@runtime_checkable
class AudioEncoder(Protocol):
    """What a `LatentEncoder` offers besides when its family makes sound: `preprocess` then stores each clip's own sound."""

    @property
    def audio_sample_rate(self) -> int:
        """Samples per second of the waveforms that encode_audio takes."""
        ...

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode the sound of clips.

        Args:
            waveforms: per clip float32 [2, samples] in [-1, 1], exactly as long as the clip.

        Returns:
            per clip, its "audio_latent".
        """
        ...


@dataclass(frozen=True)
class EncoderIdentity:
    """The encoders that a run's own pipeline has, to be compared with those that made its data.

    Args:
        role: whose pipeline it is.
        path: folder or hub id of the pipeline.
        values: what tells the encoders apart, by the keys of `LatentEncoder.describe`: only what the run depends on.
    """

    role: str
    path: str
    values: Mapping[str, str]
