"""Wan proves itself with the kit that core ships, as any third party's family does."""

from pathlib import Path
from typing import Any

import pytest
from diffusers import WanImageToVideoPipeline, WanPipeline
from PIL import Image

from fastvideo_data.video_files import read_frames
from fastvideo_testing import ModelPluginSuite
from fastvideo_testing.family_pipelines import PipelineCall, PipelineChecks
from fastvideo_testing.prepared_family import PreparedFamily


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


class ImagesOfClips:
    """Prompts bring the first frame of a clip, and the last one where the pipeline takes both."""

    last = False

    def own_pipeline(self, path: str) -> Any:
        return WanImageToVideoPipeline.from_pretrained(path)

    def prompt_images(self, prepared: PreparedFamily, clip: Path) -> dict[str, Path]:
        assert prepared.clip is not None
        frames = read_frames(clip, height=prepared.clip.height, width=prepared.clip.width)
        chosen = {"image_path": frames[0]} | (
            {"last_image_path": frames[prepared.clip.num_frames - 1]} if self.last else {}
        )
        files = {name: prepared.folder / f"{clip.stem}-{name}.png" for name in chosen}
        for name, file in files.items():
            Image.fromarray(chosen[name]).save(file)
        return files

    def run_pipeline(self, pipeline: Any, asked: PipelineCall) -> None:
        self.pipeline_options = {
            name.removesuffix("_path"): Image.open(path).convert("RGB") for name, path in asked.images.items()
        }
        super().run_pipeline(pipeline, asked)  # type: ignore[misc]  # of the suite that it is mixed into


@pytest.mark.slow
class TestWanI2v(ImagesOfClips, TestWan):
    """Wan 2.1 image-to-video: every check of the kit."""

    tiny = {"variant": "i2v"}


@pytest.mark.slow
class TestWanFlf2v(ImagesOfClips, PipelineChecks):
    """Wan 2.1, first and last frame: what the kit asks of sampling and of the pipeline; the rest does not differ from I2V."""

    plugin = "wan"
    tiny = {"variant": "flf2v"}
    last = True


@pytest.mark.slow
class TestWanI2vA14B(ImagesOfClips, PipelineChecks):
    """Wan 2.2 image-to-video: likewise; the rest is I2V's, and that of two networks A14B's."""

    plugin = "wan"
    tiny = {"variant": "i2v_a14b"}
