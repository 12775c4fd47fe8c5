"""The noise is uniform, not normal."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            'self.noise_like(prepared.latents, "noise")',
            'torch.rand(prepared.latents.shape, generator=self.rng.local("noise"))',
        ),
    ),
    checks=("test_noise_is_standard_normal",),
    says="is it torch.rand",
)
