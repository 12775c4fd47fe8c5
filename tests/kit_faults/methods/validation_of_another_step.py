"""Videos are reported at another step."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "self.validator.log_validation(iteration, request)",
            "self.validator.log_validation(iteration - 1, request)",
        ),
    ),
    checks=("test_validations_sample_the_student",),
    says="reports videos of step 4; pass the iteration on",
)
