"""Videos have the family's size, whatever the prompt says."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            'prompt.height or SIZE["height"], prompt.width or SIZE["width"]',
            'SIZE["height"], SIZE["width"]',
        ),
    ),
    checks=("test_a_video_has_the_size_and_rate_that_are_asked_for",),
    says="are the prompt's sizes read",
)
