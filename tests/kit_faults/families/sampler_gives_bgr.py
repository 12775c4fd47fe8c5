"""The sampler's frames have blue for red."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "pixels.permute(1, 2, 3, 0).cpu()",
            "pixels.permute(1, 2, 3, 0).flip(-1).cpu()",
        ),
    ),
    checks=("test_latents_of_a_clip_are_decoded_to_the_clip",),
    says="BGR in the place of RGB",
)
