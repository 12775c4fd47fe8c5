"""The schedule of training is not shifted, the one of sampling is."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            "self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)",
            "self.schedule = FewStepSchedule.from_denoising_steps(self.config.steps)",
        ),
    ),
    checks=("test_the_student_is_trained_at_the_levels_of_its_schedule",),
    says=r"is never trained at .*its shift \(`warp`\) included",
)
