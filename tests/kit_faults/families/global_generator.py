"""prepare_batch draws from torch's global generator."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "        if latents_source",
            ("        latents = latents + 0.0 * torch.randn(latents.shape)\n        if latents_source"),
        ),
    ),
    checks=("test_it_draws_nothing_from_the_global_generator",),
    says="use the `generator` that is passed in",
)
