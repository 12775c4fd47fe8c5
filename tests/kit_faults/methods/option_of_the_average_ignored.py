"""The average's decay is a number in the code."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "1 - self.config.decay", "0.5"),),
    checks=("test_every_option_changes_something",),
    says="the option decay does nothing",
)
