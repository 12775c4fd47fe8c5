"""Timesteps come from torch's global generator."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "torch.rand(prepared.batch_size, generator=generator, device=generator.device)",
            "torch.rand(prepared.batch_size)",
        ),
    ),
    checks=("test_random_numbers_come_from_the_method_s_streams",),
    says="drew from torch's global generator",
)
