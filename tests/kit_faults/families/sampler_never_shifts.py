"""Many-step sampling leaves its levels unshifted."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "tuple(self.shift_and_clamp_timestep(even).tolist())",
            "tuple(even.tolist())",
        ),
    ),
    checks=("test_many_steps_are_shifted_once",),
    says="does not follow pipeline_config\\.flow_shift",
)
