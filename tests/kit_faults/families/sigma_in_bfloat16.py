"""Noise is added, and x0 taken, at noise levels in bfloat16."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "    def prepare_batch(",
            (
                "    def sigma(self, t: Tensor) -> Tensor:\n"
                "        return (t / 1000).bfloat16().float()\n"
                "\n"
                "    def prepare_batch("
            ),
        ),
    ),
    checks=("test_x0_prediction_and_noisy_latents_belong_together",),
    says="is a sign or a sigma wrong",
)
