"""What fastvideo-core finds through the entry point `wan`; never imports torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import ModelPlugin

PLUGIN = ModelPlugin(
    name="wan",
    api=(1, 0),
    build="fastvideo_wan.components:build_wan_components",
    config="fastvideo_wan.config:WanConfig",
    preprocess="fastvideo_wan.encoder:WanEncoder",
    export="fastvideo_wan.export:export_pipeline",
    sample="fastvideo_wan.sampler:build_sampler",
    tiny="fastvideo_wan.tiny:write_tiny_pipeline",
    outline="fastvideo_wan.loading:outline_role",
    export_lora="fastvideo_wan.export_lora:export_lora",
    pipelines=("WanPipeline",),
    demo="fastvideo_wan.demo.family:wan_demo",
)
