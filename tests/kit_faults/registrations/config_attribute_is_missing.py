"""The spec names options that do not exist."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("plugin.py", "config:MineConfig", "config:Options"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=("its `config` is declared as fastvideo_mine.config:Options, but fastvideo_mine.config has no 'Options'"),
)
