"""The entry point misspells the spec."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("pyproject.toml", "plugin:PLUGIN", "plugin:PLUGINS"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=("its spec is declared as fastvideo_mine.plugin:PLUGINS, but fastvideo_mine.plugin has no 'PLUGINS'"),
)
