"""What fastvideo-core finds through the entry point `mochi`; never imports torch."""

from __future__ import annotations

from fastvideo_core import ModelPlugin

PLUGIN = ModelPlugin(
    name="mochi",
    api=(1, 0),
    build="fastvideo_mochi.components:build_components",
    config="fastvideo_mochi.config:MochiConfig",
    preprocess="fastvideo_mochi.encoder:MochiEncoder",
    export="fastvideo_mochi.export:export",
    sample="fastvideo_mochi.sampler:build_sampler",
    tiny="fastvideo_mochi.tiny:write_tiny",
    outline="fastvideo_mochi.folder:outline",
    pipelines=("MochiPipeline",),
)
