"""The teacher's guidance is a number in the code."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "scale = self.config.guidance_scale", "scale = 3.0"),),
    checks=("test_every_option_changes_something",),
    says="the option guidance_scale does nothing",
)
