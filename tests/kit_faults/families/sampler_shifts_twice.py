"""Many-step sampling shifts its levels twice."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "tuple(self.shift_and_clamp_timestep(even).tolist())",
            ("tuple(self.shift_and_clamp_timestep(self.shift_and_clamp_timestep(even)).tolist())"),
        ),
    ),
    checks=("test_many_steps_are_shifted_once",),
    says="shifts its levels twice",
)
