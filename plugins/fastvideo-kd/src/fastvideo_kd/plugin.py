"""The entry points of this package; imports no torch."""

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="kd",
    api=(1, 0),
    impl="fastvideo_kd.method:KDMethod",
    config="fastvideo_kd.config:KDConfig",
    roles=("student",),
    optional_roles=("teacher",),
)
