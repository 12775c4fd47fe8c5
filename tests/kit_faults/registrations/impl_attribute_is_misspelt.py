"""The spec misspells the class."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", "method:MineMethod", "method:MineMethods"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="has no 'MineMethods'; did you mean 'MineMethod'",
)
