"""The entry point of method `rcm`; imports no torch."""

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="rcm",
    api=(1, 0),
    impl="fastvideo_rcm.method:RcmMethod",
    config="fastvideo_rcm.config:RcmConfig",
    roles=("student", "teacher"),
    optional_roles=("critic",),
    demo="fastvideo_rcm.demo:rcm_demo",
)
