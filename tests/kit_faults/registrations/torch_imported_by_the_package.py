"""The package imports its adapter, and so torch."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (("__init__.py", '."""\n', '."""\n\nfrom fastvideo_mine.adapter import MineAdapter\n'),),
    checks=("test_spec_and_config_load_without_torch",),
    says="loading fastvideo_mine.plugin:PLUGIN imports torch",
)
