"""Both halves of guidance are called with the conditioning."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "batch, conditional=False)", "batch, conditional=True)"),),
    checks=("test_every_option_changes_something",),
    says="guidance_scale does nothing.*is conditional=False passed",
)
