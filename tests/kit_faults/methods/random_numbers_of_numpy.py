"""Timesteps come from numpy's global generator."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        ("method.py", ("import torch\nfrom"), ("import numpy\nimport torch\nfrom")),
        (
            "method.py",
            "torch.rand(prepared.batch_size, generator=generator, device=generator.device)",
            "torch.from_numpy(numpy.random.rand(prepared.batch_size)).float()",
        ),
    ),
    checks=("test_random_numbers_come_from_the_method_s_streams",),
    says="drew from numpy's global generator",
)
