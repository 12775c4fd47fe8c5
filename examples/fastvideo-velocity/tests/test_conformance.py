"""The method keeps the contract: see `fastvideo_core.testing`."""

from fastvideo_core.testing import MethodPluginSuite


class TestVelocity(MethodPluginSuite):
    plugin = "velocity"
    trainable = ("student",)
