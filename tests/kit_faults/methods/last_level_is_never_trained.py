"""The draw leaves the last level of the schedule out."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "torch.randint(len(self.schedule), ", "torch.randint(len(self.schedule) - 1, "),),
    checks=("test_the_student_is_trained_at_the_levels_of_its_schedule",),
    says="is never trained at .*student_schedule has it sampled",
)
