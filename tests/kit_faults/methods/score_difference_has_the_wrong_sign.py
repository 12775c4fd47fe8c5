"""The student is pushed from the teacher's score to the critic's."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (("losses.py", "difference = fake - real", "difference = real - fake"),),
    checks=("test_the_student_comes_nearer_to_the_data",),
    says="is a sign wrong in the loss",
    setup=(
        (
            "test_conformance.py",
            "    learning_steps = 1600\n",
            '    unsupported = {"learning": "the other suite shows it"}\n',
        ),
    ),
)
