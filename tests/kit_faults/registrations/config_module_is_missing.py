"""The spec names a module of options that does not exist."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (("plugin.py", "fastvideo_mine.config:", "fastvideo_mine.options:"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="shows it as BROKEN: .*fastvideo_mine.options:MineConfig, and that module does not exist",
)
