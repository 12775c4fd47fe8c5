"""Wan proves itself with the kit that core ships, as any third party's family does."""

from fastvideo_testing import ModelPluginSuite


class TestWan(ModelPluginSuite):
    plugin = "wan"
    unsupported = {"packing": "its latents are the autoencoder's own tensor"}
