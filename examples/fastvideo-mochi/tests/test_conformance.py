"""The family keeps the contract: see `fastvideo_testing`."""

from fastvideo_testing import ModelPluginSuite


class TestMochi(ModelPluginSuite):
    plugin = "mochi"
    unsupported = {"packing": "its latents are the autoencoder's own tensor"}
