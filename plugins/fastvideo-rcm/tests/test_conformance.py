"""rcm proves itself with the kit that core ships, as any third party's method does: with distribution matching and without."""

from fastvideo_testing import MethodPluginSuite


class TestRcm(MethodPluginSuite):
    plugin = "rcm"
    config = {"tangent_warmup_steps": 1, "generator_update_interval": 2, "dmd_denoising_steps": [1000, 750, 500]}
    optional_roles = ("critic",)
    trainable = ("student", "critic")


class TestConsistencyAlone(MethodPluginSuite):
    plugin = "rcm"
    pipeline_config = {"sampler_kind": "sde"}
    config = {"dmd_weight": 0.0, "tangent_warmup_steps": 2, "dmd_denoising_steps": [1000, 750, 500]}
    trainable = ("student",)
