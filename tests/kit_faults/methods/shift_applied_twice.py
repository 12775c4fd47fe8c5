"""Timesteps go through the family's shift a second time."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        noisy = self.adapter",
            ("        t = self.adapter.shift_and_clamp_timestep(t)\n        noisy = self.adapter"),
        ),
    ),
    checks=("test_timesteps_are_shifted_once",),
    says="shift was applied twice: shift_and_clamp_timestep takes an unshifted t",
)
