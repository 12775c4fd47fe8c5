"""Validation takes numbers of its own in place of the run's."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            (
                "            for request in self.many_step_requests(self.student, iteration):\n"
                "                self.validator.log_validation(iteration, request)\n"
            ),
            (
                "            request = next(iter(self.many_step_requests(self.student, iteration)))\n"
                "            self.validator.log_validation(iteration, request)\n"
            ),
        ),
    ),
    checks=("test_validations_sample_the_student",),
    says="do not follow training.validation_sampling_steps",
)
