"""A choice comes from Python's random."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        ("method.py", ("import torch\nfrom"), ("import random\nimport torch\nfrom")),
        (
            "method.py",
            "scale = self.config.guidance_scale",
            "scale = self.config.guidance_scale * random.choice((1.0, 1.1))",
        ),
    ),
    checks=("test_random_numbers_come_from_the_method_s_streams",),
    says="drew from Python's random.*self.rng.shared",
)
