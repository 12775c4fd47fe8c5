"""The step between two levels forgets the noise that the first call saw."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "kind = request.sampler_kind or",
            "kind = 'sde' or request.sampler_kind or",
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="an ode step keeps the noise",
)
