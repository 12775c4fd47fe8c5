"""Validation shows the teacher's videos."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "self.many_step_requests(self.student, iteration)",
            "self.many_step_requests(self.teacher, iteration)",
        ),
    ),
    checks=("test_validations_sample_the_student",),
    says="log_validation samples teacher.* student never",
)
