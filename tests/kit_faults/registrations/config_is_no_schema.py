"""The options are a plain pydantic model."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("config.py", "from fastvideo_core import MethodConfig\n", "from pydantic import BaseModel as MethodConfig\n"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is .*MineConfig.*, not a subclass of fastvideo_core.PluginConfig",
)
