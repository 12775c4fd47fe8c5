"""The sampler takes pixels in [-1, 1] for such in [0, 1]."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "((video + 1) * 127.5)",
            "(video * 255)",
        ),
    ),
    checks=("test_latents_of_a_clip_are_decoded_to_the_clip",),
    says="pixels are scaled",
)
