"""Consistency models prove themselves with the kit that core ships, as any third party's method does."""

from fastvideo_testing import MethodPluginSuite


class TestConsistencyDistillation(MethodPluginSuite):
    plugin = "consistency"
    optional_roles = ("teacher",)
    pipeline_config = {"sampler_kind": "sde"}
    config = {"solver_steps": 12, "denoising_steps": [1000, 500]}


class TestWithAnAveragedTarget(MethodPluginSuite):
    plugin = "consistency"
    optional_roles = ("teacher",)
    config = {
        "solver_steps": 12,
        "solver": "heun",
        "target": "average",
        "target_decay": 0.9,
        "loss": "pseudo_huber",
        "denoising_steps": [1000],
    }


class TestConsistencyTraining(MethodPluginSuite):
    plugin = "consistency"
    config = {"solver_steps": 12, "denoising_steps": [1000]}
