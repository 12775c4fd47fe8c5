"""predict_noise changes the noisy latents that it is given."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "        out: Tensor = handle",
            "        noisy_latents.mul_(1.0)\n        noisy_latents.add_(1e-3)\n        out: Tensor = handle",
        ),
    ),
    checks=("test_a_call_changes_none_of_its_inputs",),
    says="changed .*noisy_latents in place: make a new tensor",
)
