"""The options are a function that makes them."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "config.py",
            "class MineConfig(PluginConfig):",
            "def options(**values):\n    return MineConfig(**values)\n\n\nclass MineConfig(PluginConfig):",
        ),
        ("plugin.py", "config:MineConfig", "config:options"),
    ),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is <function options .*, not a subclass of fastvideo_core.PluginConfig",
)
