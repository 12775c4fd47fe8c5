"""prediction_target keeps the dtype of bfloat16 latents."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "    def extract_features(",
            (
                "    def prediction_target(self, clean_latents, noise, t):\n"
                "        return noise - clean_latents\n"
                "\n"
                "    def extract_features("
            ),
        ),
    ),
    checks=("test_x0_prediction_and_noisy_latents_belong_together",),
    says="losses would be computed in it",
)
