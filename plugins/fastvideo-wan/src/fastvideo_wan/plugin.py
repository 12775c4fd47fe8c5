"""What fastvideo-core finds through the entry point `wan`; never imports torch."""

from __future__ import annotations

from fastvideo_core.registry.specs import ModelPlugin

PLUGIN = ModelPlugin(
    name="wan",
    api=(1, 0),
    impl="fastvideo_wan.family:WanFamily",
    config="fastvideo_wan.config:WanConfig",
    pipelines=("WanPipeline", "WanImageToVideoPipeline"),
)
