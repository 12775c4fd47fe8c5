"""The method keeps the contract."""

from fastvideo_testing import MethodPluginSuite


class TestAveraged(MethodPluginSuite):
    plugin = "averaged"
