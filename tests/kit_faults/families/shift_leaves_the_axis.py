"""The shift gives sigmas in the place of timesteps."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "    def extract_features(",
            (
                "    def shift_and_clamp_timestep(self, t):\n"
                "        return super().shift_and_clamp_timestep(t) / 1000\n"
                "\n"
                "    def extract_features("
            ),
        ),
    ),
    checks=("test_the_timestep_shift_keeps_order_and_range",),
    says="are they sigmas, or all clamped away",
)
