"""LTX proves itself with the kit that core ships, as any third party's family does: a suite for each generation."""

from fastvideo_testing import ModelPluginSuite

PACKING = "packing has tests of its own, which know the layouts of both generations"


class TestLTXVideo(ModelPluginSuite):
    plugin = "ltx"
    unsupported = {"packing": PACKING}


class TestLTX2(ModelPluginSuite):
    """With sound: the kit's clips have some, as the family's encoder takes it."""

    plugin = "ltx"
    tiny = {"generation": 2}
    unsupported = {"packing": PACKING}
