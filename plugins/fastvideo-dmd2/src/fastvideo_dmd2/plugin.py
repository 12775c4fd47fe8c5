"""The entry point of method `dmd2`; imports no torch."""

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="dmd2",
    api=(1, 0),
    impl="fastvideo_dmd2.method:DMD2Method",
    config="fastvideo_dmd2.config:DMD2Config",
    roles=("student", "teacher", "critic"),
    demo="fastvideo_dmd2.demo:dmd2_demo",
)
