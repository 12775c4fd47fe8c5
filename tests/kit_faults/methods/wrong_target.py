"""The student regresses its own input."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target) ** 2", "(x0 - noisy) ** 2"),),
    checks=("test_the_student_comes_nearer_to_the_data",),
    says="is the target not what the student should become",
)
