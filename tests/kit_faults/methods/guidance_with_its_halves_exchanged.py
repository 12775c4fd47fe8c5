"""Guidance is c + w (u - c), away from the caption."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            "return unconditional + self.config.guidance_scale * (conditional - unconditional)",
            "return conditional + self.config.guidance_scale * (unconditional - conditional)",
        ),
    ),
    checks=("test_a_guidance_scale_of_1_is_no_guidance",),
    says="negative conditioning still counts",
)
