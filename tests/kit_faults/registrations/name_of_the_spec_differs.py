"""Spec and entry point have different names."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", 'name="mine"', 'name="mien"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="the entry point is named 'mine' but its spec is named 'mien'",
)
