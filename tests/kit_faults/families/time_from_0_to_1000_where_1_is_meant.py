"""The network, which takes time from 0 to 1, is told it from 0 to 1000."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "self.sigma(t).reshape(-1)",
            "t.reshape(-1)",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="is the network told the time as the pipeline tells it \\(0 to 1, or 0 to 1000",
)
