"""Many-step sampling always takes 20 steps."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "request.sampling_steps or 20",
            "20",
        ),
    ),
    checks=("test_many_steps_are_as_many_as_asked_for",),
    says="is request\\.sampling_steps read",
)
