"""The teacher is called at another noise level than that of its input."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "self.teacher, noisy, t,", "self.teacher, noisy, 0.9 * t,"),),
    checks=("test_networks_are_called_at_the_noise_level_of_their_input",),
    says="predict_x0_guided of teacher at timesteps .* away from those at which add_noise made its input",
)
