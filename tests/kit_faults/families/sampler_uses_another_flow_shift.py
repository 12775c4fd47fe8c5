"""The sampler takes the default flow shift, training that of the run."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "family.py",
            "MineSampler(_adapter(pipeline_config), device)",
            "MineSampler(_adapter(MineConfig()), device)",
        ),
    ),
    checks=("test_sampler_and_adapter_shift_alike",),
    says="flow_shift is one, from pipeline_config",
    setup=(
        (
            "test_conformance.py",
            '    plugin = "mine"\n',
            '    plugin = "mine"\n    config = {"flow_shift": 5.0}\n',
        ),
    ),
)
