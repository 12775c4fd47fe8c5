"""Wan proves itself with the kit that core ships, as any third party's family does."""

from typing import Any

import pytest
from diffusers import WanPipeline

from fastvideo_testing import ModelPluginSuite


class TestWan(ModelPluginSuite):
    plugin = "wan"
    unsupported = {"packing": "its latents are the autoencoder's own tensor"}

    def own_pipeline(self, path: str) -> Any:
        return WanPipeline.from_pretrained(path)


@pytest.mark.slow
class TestWanA14B(TestWan):
    """Wan 2.2: two networks; the kit trains below their boundary, and samples on both sides."""

    tiny = {"variant": "a14b"}


@pytest.mark.slow
class TestWanTi2v(TestWan):
    """Wan 2.2 TI2V, with an autoencoder of its own: text-to-video; given first frames have tests of their own."""

    tiny = {"variant": "ti2v"}
