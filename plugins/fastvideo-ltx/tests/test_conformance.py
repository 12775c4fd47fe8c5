"""LTX proves itself with the kit that core ships, as any third party's family does."""

from fastvideo_core.testing import ModelPluginSuite


class TestLTX(ModelPluginSuite):
    plugin = "ltx"
    unsupported = {"packing": "packing has tests of its own, which know the layouts of both generations"}
