"""Knowledge distillation proves itself with the kit, as any third party's method does: once for each target."""

from fastvideo_testing import MethodPluginSuite


class TestX0(MethodPluginSuite):
    plugin = "kd"


class TestVelocity(MethodPluginSuite):
    plugin = "kd"
    config = {"target": "velocity"}


class TestGuidance(MethodPluginSuite):
    plugin = "kd"
    optional_roles = ("teacher",)
    config = {"target": "guidance", "teacher_guidance_scale": 3.0}
    training = {"validation_guidance_scale": "1"}
