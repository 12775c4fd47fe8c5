"""The network is told the noise level in bfloat16."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "self.sigma(t).reshape(-1)",
            "self.sigma(t).reshape(-1).bfloat16().float()",
        ),
    ),
    checks=("test_nearby_noise_levels_are_told_apart",),
    says="is the noise level rounded to bfloat16",
)
