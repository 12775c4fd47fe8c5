"""The callback keeps the contract: see `fastvideo_testing`."""

from fastvideo_testing import CallbackPluginSuite


class TestDeadline(CallbackPluginSuite):
    plugin = "deadline"
    config = {"minutes": 60}
    unsupported = {"resume": "its state is a clock, which never shows the same twice"}
