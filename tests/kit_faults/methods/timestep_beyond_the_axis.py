"""Timesteps are scaled beyond the end of the noise axis."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "        noisy = self.adapter", ("        t = 1.3 * t\n        noisy = self.adapter")),),
    checks=("test_networks_are_called_at_the_noise_level_of_their_input",),
    says=r"timesteps lie in 0\.\.1000",
)
