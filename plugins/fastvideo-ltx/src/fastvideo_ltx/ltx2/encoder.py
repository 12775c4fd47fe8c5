"""Videos, their sound and captions to what the parquet data set stores: `preprocess` with LTX-2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
from torch import Tensor

from fastvideo_data.captions import CaptionCut, CaptionEncoder, caption_cut
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, StoredEncoder, encoder_identity
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.ltx2.loading import load_audio_vae, load_vae
from fastvideo_ltx.ltx2.mel import FFT_SIZE, log_mel

AUDIO_VAE = StoredEncoder("audio_vae", "audio_vae")
TEXT_PROJECTION = StoredEncoder(
    "text_projection", "connectors", lambda name: name.partition(".")[0].endswith("text_proj_in")
)
"""What of the connectors the stored text went through."""

ENCODERS = (VAE, AUDIO_VAE, TEXT_ENCODER, TEXT_PROJECTION)


class Ltx2Encoder:
    """The autoencoders of video and sound and the text encoder of an LTX-2 pipeline; each is loaded at its first use.

    Args:
        folder: the pipeline.
        text: the text encoder.
        text_dtype: that it runs in.
        device: where the autoencoders run; they are float32.
    """

    def __init__(
        self, folder: LtxFolder, *, text: CaptionEncoder, text_dtype: torch.dtype, device: torch.device
    ) -> None:
        self._folder = folder
        self._text = text
        self._text_dtype = text_dtype
        self._device = device
        self._vae: AutoencoderKLLTX2Video | None = None
        self._audio_vae: AutoencoderKLLTX2Audio | None = None
        self._description: dict[str, str] | None = None

    @property
    def geometry(self) -> VideoGeometry:
        """8 k + 1 frames, sizes in multiples of 32 pixels, 24 frames per second."""
        return self._folder.generation.geometry

    @property
    def audio_sample_rate(self) -> int:
        """Samples per second of `encode_audio`'s waveforms."""
        rate: int = self._folder.facts["audio_sample_rate"]
        return rate

    def describe(self) -> dict[str, str]:
        """The encoding's identity, taken from the weights themselves, so that a moved folder keeps it."""
        if self._description is None:
            identity = encoder_identity(self._folder.path, ENCODERS, where="model path", download=True)
            assert identity is not None
            self._description = {
                "family": "ltx",
                **identity,
                "text_dtype": str(self._text_dtype).removeprefix("torch."),
                "latents_normalised": "false",
            }
        return dict(self._description)

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """The mode of the VAE's posterior, un-normalised.

        Args:
            frames: uint8 RGB [B, T, H, W, 3], of a size that `geometry` accepts.

        Returns:
            per clip {"vae_latent": float32 [128, (T - 1) / 8 + 1, H / 32, W / 32]}, on the CPU.

        Raises:
            DataError: the size does not fit.
        """
        _, num_frames, height, width, _ = frames.shape
        self.geometry.check(height=height, width=width, num_frames=num_frames)
        video = frames.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        latents = self._autoencoder().encode(video).latent_dist.mode()
        return [{"vae_latent": latent.cpu()} for latent in latents]

    @torch.no_grad()
    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """The mode of the audio VAE's posterior, un-normalised, of as many moments as LTX2Pipeline makes for the time span.

        Args:
            waveforms: per clip float32 [2, samples] in [-1, 1].

        Returns:
            per clip float32 [8, T, 16], T = 25 per second, on the CPU.
        """
        return [self._encode_sound(waveform.to(self._device)) for waveform in waveforms]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its features [L, D] before the connectors, L <= 1024 tokens; on the CPU."""
        return [features.cpu() for features in self._text.encode(captions)]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return caption_cut(self._text, caption)

    def _encode_sound(self, waveform: Tensor) -> Tensor:
        facts = self._folder.facts
        silence = max(0, FFT_SIZE - waveform.shape[1])  # behind a sound that is shorter than a window
        mel = log_mel(
            torch.nn.functional.pad(waveform, (0, silence))[None],
            sample_rate=facts["audio_sample_rate"],
            hop_length=facts["audio_hop_length"],
            mel_bins=facts["audio_mel_bins"] * facts["audio_compression"],
        )
        latent: Tensor = self._audio_autoencoder().encode(mel).latent_dist.mode()[0]
        samples_per_moment = facts["audio_hop_length"] * facts["audio_compression"]
        return latent[:, : max(1, round(waveform.shape[1] / samples_per_moment))].cpu()

    def _autoencoder(self) -> AutoencoderKLLTX2Video:
        if self._vae is None:
            self._vae = load_vae(self._folder.path, device=self._device, where="model path")
        return self._vae

    def _audio_autoencoder(self) -> AutoencoderKLLTX2Audio:
        if self._audio_vae is None:
            self._audio_vae = load_audio_vae(self._folder.path, device=self._device, where="model path")
        return self._audio_vae
