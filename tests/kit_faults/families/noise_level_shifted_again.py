"""predict_noise shifts the noise level, which is shifted already."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "self.sigma(t).reshape(-1)",
            "self.sigma(self.shift_and_clamp_timestep(t)).reshape(-1)",
        ),
    ),
    checks=("test_flow_shift_moves_the_noise_levels_and_nothing_else",),
    says="t is shifted already when it comes to predict_noise",
)
