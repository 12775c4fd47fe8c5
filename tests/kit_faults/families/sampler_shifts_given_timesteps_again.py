"""The sampler shifts few-step levels, which are shifted already."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "return FewStepSchedule(request.sampling_timesteps)",
            (
                "t = torch.tensor(request.sampling_timesteps)\n"
                "            return FewStepSchedule(tuple(self.shift_and_clamp_timestep(t).tolist"
                "()))"
            ),
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="they are shifted already, and taken as they are",
)
