"""What fastvideo-core finds through the entry point `ltx`; never imports torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import ModelPlugin

PLUGIN = ModelPlugin(
    name="ltx",
    api=(1, 0),
    impl="fastvideo_ltx.family:LtxFamily",
    config="fastvideo_ltx.config:LtxConfig",
    pipelines=(
        "LTXPipeline",
        "LTXImageToVideoPipeline",
        "LTXConditionPipeline",
        "LTX2Pipeline",
        "LTX2ImageToVideoPipeline",
        "LTX2ConditionPipeline",
    ),
)
