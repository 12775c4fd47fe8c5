"""The sampler swaps height and width."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "height // POOLING, width // POOLING)",
            "width // POOLING, height // POOLING)",
        ),
    ),
    checks=("test_a_video_has_the_size_and_rate_that_are_asked_for",),
    says="are the prompt's sizes read, and axes in order",
)
