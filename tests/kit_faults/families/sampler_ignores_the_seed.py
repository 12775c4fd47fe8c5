"""The sampler draws its noise from torch's global generator."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "torch.randn(shape, generator=generator)",
            "torch.randn(shape)",
        ),
    ),
    checks=("test_equal_seeds_sample_equal_videos",),
    says="draw from the generator only",
)
