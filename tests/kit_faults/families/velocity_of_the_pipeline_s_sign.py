"""The adapter forgets that Mochi predicts towards the data; so does its sampler, which calls it."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "adapter.py",
            "return -towards_data",
            "return towards_data",
        ),
    ),
    checks=("test_predictions_are_those_of_the_model_s_own_pipeline",),
    says="a sign is wrong throughout",
)
