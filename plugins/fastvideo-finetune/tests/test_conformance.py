"""Fine-tuning proves itself with the kit that core ships, as any third party's method does."""

from fastvideo_testing import MethodPluginSuite


class TestFinetune(MethodPluginSuite):
    plugin = "finetune"
    training = {"training_cfg_rate": 0.5}
