"""The family keeps the contract: see `fastvideo_core.testing`."""

from fastvideo_core.testing import ModelPluginSuite


class TestMochi(ModelPluginSuite):
    plugin = "mochi"
    unsupported = {"packing": "its latents are the autoencoder's own tensor"}
