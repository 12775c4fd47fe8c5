"""Videos, their sound and captions to what the parquet data set stores: `preprocess` with LTX-2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLLTX2Audio
from torch import Tensor

from fastvideo_data.captions import CaptionEncoder
from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, StoredEncoder
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.ltx2.loading import load_audio_vae, load_vae
from fastvideo_ltx.ltx2.mel import FFT_SIZE, log_mel

AUDIO_VAE = StoredEncoder("audio_vae", "audio_vae")
TEXT_PROJECTION = StoredEncoder(
    "text_projection", "connectors", lambda name: name.partition(".")[0].endswith("text_proj_in")
)
"""What of the connectors the stored text went through."""

ENCODERS = (VAE, AUDIO_VAE, TEXT_ENCODER, TEXT_PROJECTION)


class Ltx2Encoder(PipelineEncoder):
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
        super().__init__(
            folder.path,
            family="ltx",
            geometry=folder.traits.geometry,
            encoders=ENCODERS,
            text=text,
            settings={"text_dtype": str(text_dtype).removeprefix("torch.")},
            load_vae=lambda: load_vae(folder.path, device=device, where="model path"),
            device=device,
        )
        self._folder = folder
        self._audio_vae: AutoencoderKLLTX2Audio | None = None

    @property
    def audio_sample_rate(self) -> int:
        """Samples per second of `encode_audio`'s waveforms."""
        rate: int = self._folder.facts["audio_sample_rate"]
        return rate

    @torch.no_grad()
    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """The mode of the audio VAE's posterior, un-normalised, of as many moments as LTX2Pipeline makes for the time span.

        Args:
            waveforms: per clip float32 [2, samples] in [-1, 1].

        Returns:
            per clip float32 [8, T, 16], T = 25 per second, on the CPU.
        """
        return [self._encode_sound(waveform.to(self._device)) for waveform in waveforms]

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

    def _audio_autoencoder(self) -> AutoencoderKLLTX2Audio:
        if self._audio_vae is None:
            self._audio_vae = load_audio_vae(self._folder.path, device=self._device, where="model path")
        return self._audio_vae
