"""The encoder hands its autoencoder blue for red."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "encoder.py",
            "video = frames.to(self._device)",
            "video = frames.flip(-1).to(self._device)",
        ),
    ),
    checks=("test_latents_of_a_clip_are_decoded_to_the_clip",),
    says="BGR in the place of RGB",
)
