"""The loss has the wrong sign."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target) ** 2", "(x0 + target) ** 2"),),
    checks=("test_the_student_comes_nearer_to_the_data",),
    says="is a sign wrong in the loss",
)
