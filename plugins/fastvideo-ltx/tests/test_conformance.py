"""LTX proves itself with the kit that core ships, as any third party's family does: a suite for each generation."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import LTX2Pipeline, LTXPipeline
from torch import Tensor

from fastvideo_testing import ModelPluginSuite
from fastvideo_testing.family_pipelines import PipelineChecks

PACKING = "packing has tests of its own, which know the layouts of both generations"


class TestLTXVideo(ModelPluginSuite):
    plugin = "ltx"
    unsupported = {"packing": PACKING}
    pipeline_options = {"frame_rate": 25}

    def own_pipeline(self, path: str) -> Any:
        return LTXPipeline.from_pretrained(path)


class CallsOfLTX2:
    """How the generation's pipeline is asked for what the family samples."""

    pipeline_options = {
        "frame_rate": 24.0,
        "stg_scale": 0.0,
        "modality_scale": 1.0,
        "guidance_rescale": 0.0,
        "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0,
        "audio_guidance_rescale": 0.0,
        "spatio_temporal_guidance_blocks": None,
    }
    """The pipeline without its extra guidance terms."""

    def own_pipeline(self, path: str) -> Any:
        return LTX2Pipeline.from_pretrained(path)

    def run_pipeline(self, pipeline: Any, asked: Any) -> None:
        self.pipeline_options = {**type(self).pipeline_options, "audio_guidance_scale": asked.guidance_scale}
        super().run_pipeline(pipeline, asked)  # type: ignore[misc]  # of the suite that it is mixed into

    def pipeline_latents(self, parts: Sequence[Tensor]) -> Tensor:
        """Video tokens, then audio tokens."""
        return torch.cat(list(parts), dim=1)


class TestLTX2(CallsOfLTX2, ModelPluginSuite):
    """With sound: the kit's clips have some, as the family's encoder takes it."""

    plugin = "ltx"
    tiny = {"generation": 2}
    unsupported = {"packing": PACKING}


@pytest.mark.slow
class TestLTX23(CallsOfLTX2, PipelineChecks):
    """Gates, modulated cross-attention to the text, a projection of the text per stream, sound of 48 kHz.

    What is asked of sampling and of the pipeline; LTX-2.5, which is asked everything, has all of these too.
    """

    plugin = "ltx"
    tiny = {"generation": 2, "variant": "ltx23"}


@pytest.mark.slow
class TestLTX25(TestLTX2):
    """Gemma 4 text, no biases in the video's feed-forward layers."""

    tiny = {"generation": 2, "variant": "ltx25"}
