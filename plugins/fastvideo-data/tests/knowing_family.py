"""A family that knows which encoders its pipeline has."""

from __future__ import annotations

from typing import Any

from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.family import ParquetFamily
from fastvideo_testing.toy import ToyConfig, build_toy_components


class KnowingConfig(ToyConfig):
    here: bool = True


class Knowing(ParquetFamily):
    """A family whose pipeline has the text encoder "t1" and the autoencoder "v1"."""

    def build(self, cfg: Any) -> Any:
        return build_toy_components(cfg)

    def encoder_identity(self, cfg: Any, *, latents_source: str | None, download: bool) -> EncoderIdentity | None:
        values = {"text_encoder": "t1", "vae": "v1"}
        here = cfg.pipeline_config.here or download
        return EncoderIdentity("student", cfg.roles["student"].path, values) if here else None
