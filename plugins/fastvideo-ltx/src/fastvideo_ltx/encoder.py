"""Videos and captions to what the parquet data set stores: `preprocess` with LTX."""

from __future__ import annotations

import torch

from fastvideo_data.encoder import LatentEncoder
from fastvideo_ltx.generation import generation_of
from fastvideo_ltx.generations import open_folder


def build_encoder(model_path: str, device: torch.device, dtype: torch.dtype = torch.float32) -> LatentEncoder:
    """The encoders of a pipeline; each is loaded at its first use.

    Args:
        model_path: folder or hub id.
        device: where the encoders run.
        dtype: of the text encoder; the VAEs are float32.

    Raises:
        ConfigError: the path holds no LTX pipeline.
    """
    folder = open_folder(model_path, where="model path")
    return generation_of(folder).encoder(folder, torch.device(device), dtype)
