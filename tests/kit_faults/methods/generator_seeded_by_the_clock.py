"""A generator of its own is seeded anew in every run."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            'generator = self.rng.local("timestep")',
            ("generator = torch.Generator()\n        generator.seed()"),
        ),
    ),
    checks=("test_equal_runs_are_equal",),
    says="two runs with the same seed .*generator of its own",
)
