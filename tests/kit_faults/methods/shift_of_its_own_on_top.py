"""The method shifts by the run's flow_shift itself, and lets the family shift again."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        t = self.adapter",
            (
                "        s = self.cfg.pipeline_config.flow_shift\n"
                "        u = s * u / (1 + (s - 1) * u)\n"
                "        t = self.adapter"
            ),
        ),
    ),
    checks=("test_timesteps_are_shifted_once",),
    says="shift was applied twice",
)
