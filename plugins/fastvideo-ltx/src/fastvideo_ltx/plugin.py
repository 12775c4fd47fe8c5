"""What fastvideo-core finds through the entry point `ltx`; never imports torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import ModelPlugin

PLUGIN = ModelPlugin(
    name="ltx",
    api=(1, 0),
    build="fastvideo_ltx.components:build_ltx_components",
    config="fastvideo_ltx.config:LtxConfig",
    preprocess="fastvideo_ltx.encoder:build_encoder",
    export="fastvideo_ltx.export:export_pipeline",
    sample="fastvideo_ltx.path_sampler:build_sampler",
    tiny="fastvideo_ltx.tiny:write_tiny_pipeline",
    outline="fastvideo_ltx.outline:outline_role",
    export_lora="fastvideo_ltx.export_lora:export_lora",
    pipelines=(
        "LTXPipeline",
        "LTXImageToVideoPipeline",
        "LTXConditionPipeline",
        "LTX2Pipeline",
        "LTX2ImageToVideoPipeline",
        "LTX2ConditionPipeline",
    ),
)
