"""x0 comes in bfloat16."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "    def extract_features(",
            (
                "    def predict_x0(self, *args, **kwargs):\n"
                "        return super().predict_x0(*args, **kwargs).bfloat16()\n"
                "\n"
                "    def extract_features("
            ),
        ),
    ),
    checks=("test_x0_prediction_and_noisy_latents_belong_together",),
    says="predict_x0 gave torch\\.bfloat16, not float32: take x0 in float32",
)
