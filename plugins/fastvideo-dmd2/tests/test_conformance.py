"""DMD2 proves itself with the kit that core ships, as any third party's method does."""

from fastvideo_testing import MethodPluginSuite


class TestDMD2(MethodPluginSuite):
    plugin = "dmd2"
    trainable = ("student", "critic")
    config = {"dmd_denoising_steps": [1000, 500], "generator_update_interval": 2}


class TestDMD2OnData(MethodPluginSuite):
    plugin = "dmd2"
    trainable = ("student", "critic")
    config = {"rollout_mode": "data_latent", "dmd_denoising_steps": [1000, 500], "generator_update_interval": 4}
    learning_steps = 1600
