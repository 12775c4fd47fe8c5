"""The few-step schedule is shifted when it is made and again before networks are called."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            "        t = levels[drawn].to(prepared.latents.device)",
            "        t = self.adapter.shift_and_clamp_timestep(levels[drawn]).to(prepared.latents.device)",
        ),
    ),
    checks=("test_the_student_is_trained_at_the_levels_of_its_schedule",),
    says="is never trained at .*take the levels of training from student_schedule",
)
