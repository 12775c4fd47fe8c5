"""The spec names the adapter in place of the family."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (("plugin.py", "family:MineFamily", "adapter:MineAdapter"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says=("is MineAdapter, which is no ModelFamily: subclass fastvideo_core.ModelFamily, or name the class"),
)
