"""Latents and noise are exchanged when the one is added to the other."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            'add_noise(prepared.latents, self.noise_like(prepared.latents, "noise"), t)',
            'add_noise(self.noise_like(prepared.latents, "noise"), prepared.latents, t)',
        ),
    ),
    checks=("test_noise_is_standard_normal",),
    says="are latents and noise exchanged",
)
