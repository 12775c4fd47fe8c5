"""The sampler starts from noise of half the spread."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "torch.randn(shape, generator=generator)",
            "0.5 * torch.randn(shape, generator=generator)",
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="starts from noise",
)
