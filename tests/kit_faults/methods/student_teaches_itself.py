"""The target comes from the student, and the teacher is never asked."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "predict_x0_guided(self.teacher,", "predict_x0_guided(self.student,"),),
    checks=("test_the_student_comes_nearer_to_the_data",),
    says="is the target not what the student should become",
)
