"""prepare_batch scales latents that the encoder scaled already."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "self._device, torch.float32)\n        if latents",
            "self._device, torch.float32) * 0.5\n        if latents",
        ),
    ),
    checks=("test_latents_that_are_stored_normalised_are_taken_as_they_are",),
    says="normalised \\(or scaled\\) twice",
)
