"""The family keeps the contract: see `fastvideo_testing`."""

from typing import Any

from diffusers import MochiPipeline

from fastvideo_testing import ModelPluginSuite


class TestMochi(ModelPluginSuite):
    plugin = "mochi"
    unsupported = {"packing": "its latents are the autoencoder's own tensor"}
    pipeline_sign = -1  # Mochi predicts towards the data

    def own_pipeline(self, path: str) -> Any:
        return MochiPipeline.from_pretrained(path)
