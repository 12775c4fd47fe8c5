"""The method keeps the contract: see `fastvideo_testing`."""

from fastvideo_testing import MethodPluginSuite


class TestVelocity(MethodPluginSuite):
    plugin = "velocity"
    trainable = ("student",)
