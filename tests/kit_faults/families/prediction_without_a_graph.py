"""predict_noise detaches what it gives."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "        return out\n\n    def extract",
            "        return out.detach()\n\n    def extract",
        ),
    ),
    checks=("test_gradients_reach_the_trained_role_only",),
    says="is something computed under no_grad, or detached",
)
