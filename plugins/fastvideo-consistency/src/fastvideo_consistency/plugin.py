"""The entry point of method `consistency`; imports no torch."""

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="consistency",
    api=(1, 0),
    impl="fastvideo_consistency.method:ConsistencyMethod",
    config="fastvideo_consistency.config:ConsistencyConfig",
    roles=("student",),
    optional_roles=("teacher",),
    demo="fastvideo_consistency.demo:consistency_demo",
)
