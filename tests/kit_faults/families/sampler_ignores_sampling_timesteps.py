"""The sampler takes its own schedule where few-step levels are asked for."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "if request.sampling_timesteps is not None:",
            "if False:",
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="request\\.sampling_timesteps are the exact levels",
)
