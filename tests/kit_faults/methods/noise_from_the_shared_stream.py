"""All processes add the same noise."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            'self.noise_like(prepared.latents, "noise")',
            'torch.randn(prepared.latents.shape, generator=self.rng.shared("noise"))',
        ),
    ),
    checks=("test_all_processes_call_the_same_networks",),
    says="the noise of process 0.*self.rng.local",
)
