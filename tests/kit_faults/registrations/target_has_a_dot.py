"""The class is named with a dot in place of the colon."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", "method:MineMethod", "method.MineMethod"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="impl is 'fastvideo_mine.method.MineMethod', not a text of the form 'module:attr'",
)
