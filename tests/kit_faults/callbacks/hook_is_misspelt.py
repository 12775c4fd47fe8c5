"""The name of a hook is misspelt."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "def step_end(", "def steps_end("),),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="unknown hook 'steps_end'.*did you mean 'step_end'",
)
