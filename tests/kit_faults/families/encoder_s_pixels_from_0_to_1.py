"""The encoder scales pixels to [0, 1], the sampler back from [-1, 1]."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "encoder.py",
            ".float() / 127.5 - 1",
            ".float() / 255",
        ),
    ),
    checks=("test_latents_of_a_clip_are_decoded_to_the_clip",),
    says="pixels are scaled: contrast times 0",
)
