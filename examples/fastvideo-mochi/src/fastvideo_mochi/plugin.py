"""What fastvideo-core finds through the entry point `mochi`; never imports torch."""

from __future__ import annotations

from fastvideo_core import ModelPlugin

PLUGIN = ModelPlugin(
    name="mochi",
    api=(1, 0),
    impl="fastvideo_mochi.family:MochiFamily",
    config="fastvideo_mochi.config:MochiConfig",
    pipelines=("MochiPipeline",),
)
