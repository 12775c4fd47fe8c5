"""Validation samples a few-step student in many steps."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "            sampling_timesteps=self.schedule.timesteps,\n", "            sampling_steps=50,\n"),),
    checks=("test_validations_sample_the_student",),
    says="validations sample student at many steps, and its student_schedule says",
)
