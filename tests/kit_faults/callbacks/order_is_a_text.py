"""`order` is a text."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "order = 0 ", 'order = "late" '),),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="`order` is 'late', not a whole number",
)
