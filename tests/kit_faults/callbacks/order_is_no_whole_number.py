"""`order` is no whole number."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "order = 0 ", "order = 0.5 "),),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="`order` is 0.5, not a whole number",
)
