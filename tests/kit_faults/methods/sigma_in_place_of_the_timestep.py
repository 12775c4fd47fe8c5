"""Networks are given sigma in 0..1 where they want a timestep."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        noisy = self.adapter",
            ("        t = t / self.adapter.num_train_timesteps\n        noisy = self.adapter"),
        ),
    ),
    checks=("test_networks_are_called_at_the_noise_level_of_their_input",),
    says="not from 0 to 1",
)
