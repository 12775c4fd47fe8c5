"""Adapter and sampler take the network's velocity for its negative, everywhere alike."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "        return out\n\n    def extract",
            "        return -out\n\n    def extract",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="it is the negative of it: a sign is wrong throughout",
)
