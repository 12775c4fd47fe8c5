"""A print that was left in the options."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("config.py", "class MineConfig", 'print("here")\n\n\nclass MineConfig'),),
    checks=("test_spec_and_config_load_without_torch",),
    says="prints 'here', which gets into what commands print",
)
