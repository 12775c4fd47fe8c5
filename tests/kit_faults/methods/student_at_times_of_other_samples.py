"""Timesteps are shuffled between making the student's input and calling it."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "self.student, noisy, t,", "self.student, noisy, t.roll(1),"),),
    checks=("test_networks_are_called_at_the_noise_level_of_their_input",),
    says="predict_x0 of student.* at timesteps .* away from those",
)
