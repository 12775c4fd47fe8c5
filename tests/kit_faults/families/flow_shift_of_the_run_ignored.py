"""The family's own flow shift is taken, whatever pipeline_config says."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "family.py",
            "FLOW_SHIFT if config.flow_shift is None else config.flow_shift",
            "FLOW_SHIFT",
        ),
    ),
    checks=("test_flow_shift_moves_the_noise_levels_and_nothing_else",),
    says="is flow_shift read\\?",
)
