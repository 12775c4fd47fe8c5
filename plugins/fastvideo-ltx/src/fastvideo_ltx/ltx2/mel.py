"""Waveforms to the log-mel spectrograms that LTX-2's audio autoencoder takes."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

FFT_SIZE = 1024
FLOOR = 1e-5


def log_mel(waveforms: Tensor, *, sample_rate: int, hop_length: int, mel_bins: int) -> Tensor:
    """The natural logarithm of Slaney's mel scale over magnitudes, as the LTX-2 reference makes it (a Hann window of 1024
    samples around every hop, reflected at the ends).

    Args:
        waveforms: float32 [B, channels, samples] in [-1, 1], more than 512 samples.
        sample_rate: of the waveforms, per second.
        hop_length: samples per mel frame.
        mel_bins: bands between 0 and sample_rate / 2.

    Returns:
        float32 [B, channels, samples // hop_length + 1, mel_bins].
    """
    batch, channels, samples = waveforms.shape
    spectrum = torch.stft(
        waveforms.reshape(batch * channels, samples).float(),
        FFT_SIZE,
        hop_length,
        window=torch.hann_window(FFT_SIZE, device=waveforms.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    bank = mel_filter_bank(
        FFT_SIZE // 2 + 1, mel_bins, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
    )
    filters = torch.from_numpy(bank).to(waveforms.device, torch.float32)  # [frequencies, mel bins]
    mel = spectrum.abs().transpose(1, 2) @ filters
    return mel.clamp(min=FLOOR).log().reshape(batch, channels, -1, mel_bins)
