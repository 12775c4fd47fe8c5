"""What a generation of LTX is, as its folders, batches and samplers ask for it: plain values, no networks."""

from __future__ import annotations

from typing import ClassVar

from fastvideo_data.video_sizes import VideoGeometry, VideoSize
from fastvideo_ltx.config import FRAMES_DIVISOR, LtxConfig


class Traits:
    """The values of a generation.

    Attributes:
        name: how messages call it.
        variants: of its tiny pipelines, the first one first.
        supported: what errors about an unusable pipeline offer instead.
        pipelines: the diffusers pipeline classes whose folders it reads.
        components: the sub-folders of such a folder.
        weighted: those of them that hold weights.
        streams: what it makes: the values of pipeline_config.streams, which are all of them by default.
        geometry: the videos that it encodes; its fps is the one of sampled videos where nothing else is said.
        size: of sampled videos whose prompt and run name none.
        negative_prompt: the one that Lightricks publish, which `negative_prompt: default` stands for.
        takes_sigmas: whether its pipelines sample on the noise levels that they are given.
        unguided: the arguments that turn off every guidance of its pipelines.
    """

    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    supported: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    components: ClassVar[tuple[str, ...]]
    weighted: ClassVar[tuple[str, ...]]
    streams: ClassVar[tuple[str, ...]]
    geometry: ClassVar[VideoGeometry]
    size: ClassVar[VideoSize]
    negative_prompt: ClassVar[str]
    takes_sigmas: ClassVar[bool] = False
    unguided: ClassVar[str] = "guidance_scale=1.0"

    def chosen_streams(self, config: LtxConfig) -> tuple[str, ...]:
        """What the run trains and samples."""
        return self.streams if config.streams is None else config.streams

    def frames_apart(self, pipeline: str) -> int:
        """At which frames a folder of that diffusers class may be given images besides the first: from frame 1 on, every so
        many; 0 where it may not."""
        return FRAMES_DIVISOR

    def frame_rate(self, config: LtxConfig) -> float:
        """Frames per second of what names none."""
        return self.geometry.fps if config.fps is None else config.fps
