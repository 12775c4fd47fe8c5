"""A generator of its own starts anew after a resume."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            (
                "        optimizer = build_optimizer(self.student, cfg)\n"
                "        self.generator = torch.Generator().manual_seed(cfg.training.seed)\n"
            ),
        ),
        ("method.py", 'generator = self.rng.local("timestep")', "generator = self.generator"),
    ),
    checks=("test_a_resumed_run_ends_like_one_that_was_never_interrupted",),
    says="not from a generator of its own",
)
