"""Guidance is c + w (c - u), so that 1 is not none."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "return unconditional + self", "return conditional + self"),),
    checks=("test_a_guidance_scale_of_1_is_no_guidance",),
    says=r"negative conditioning still counts: guidance is u \+ w \(c - u\)",
)
