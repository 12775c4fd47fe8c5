"""What fastvideo-core finds through the entry point `velocity`; never imports torch."""

from __future__ import annotations

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="velocity",
    api=(1, 0),
    impl="fastvideo_velocity.method:VelocityMethod",
    config="fastvideo_velocity.config:VelocityConfig",
    roles=("student", "teacher"),
)
