"""The student is trained for few steps, and nothing tells those who sample it."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            (
                "    @classmethod\n"
                "    def student_schedule(cls, config: AveragedConfig, warp: Callable[[Tensor], Tensor]) -> "
                "FewStepSchedule:\n"
                "        return FewStepSchedule.from_denoising_steps(config.steps, warp=warp)\n"
                "\n"
            ),
            "",
        ),
        (
            "method.py",
            "self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)",
            (
                "self.schedule = FewStepSchedule.from_denoising_steps(self.config.steps, "
                "warp=adapter.shift_and_clamp_timestep)"
            ),
        ),
    ),
    checks=("test_the_student_is_trained_at_the_levels_of_its_schedule",),
    says="its student_schedule gives None.*let student_schedule give these few steps",
)
