"""The method calls a primitive that its Protocol does not have."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "ShiftAndClampTimestep, AddNoise, PredictX0, PredictX0Guided, Protocol",
            "ShiftAndClampTimestep, AddNoise, PredictX0, Protocol",
        ),
    ),
    checks=("test_it_declares_every_primitive_that_it_uses",),
    says="uses adapter.predict_x0_guided, which it does not declare",
)
