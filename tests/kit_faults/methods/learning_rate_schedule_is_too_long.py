"""The student's schedule counts the run's steps, and it is updated in every second of them."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (("method.py", "self.config.student_updates(steps), self", "steps, self"),),
    checks=("test_learning_rates_follow_the_schedule",),
    says="learning rate of student goes from .* how often the role is updated",
)
