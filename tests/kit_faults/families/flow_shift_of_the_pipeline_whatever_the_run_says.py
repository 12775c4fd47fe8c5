"""Training takes the shift of the pipeline's scheduler, whatever pipeline_config says."""

from tests.kit_faults.fault import DIFFUSERS_FAMILY, Fault

FAULT = Fault(
    DIFFUSERS_FAMILY,
    (
        (
            "family.py",
            "return MineAdapter(base, flow_shift=pipeline_shift(base, section(cfg)), ",
            "return MineAdapter(base, flow_shift=pipeline_shift(base, MineConfig()), ",
        ),
    ),
    checks=("test_flow_shift_moves_the_noise_levels_and_nothing_else",),
    says="is flow_shift read\\?",
)
