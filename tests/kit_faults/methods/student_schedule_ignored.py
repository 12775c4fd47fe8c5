"""The student is trained at levels of its own, and not at those of its schedule."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            "self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)",
            (
                "self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)\n"
                "        self.schedule = FewStepSchedule((900.0, 500.0, 100.0))"
            ),
        ),
    ),
    checks=("test_the_student_is_trained_at_the_levels_of_its_schedule",),
    says="take the levels of training from student_schedule",
)
