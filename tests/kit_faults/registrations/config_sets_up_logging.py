"""Loading the options sets up logging."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "config.py",
            "class MineConfig",
            "import logging\n\nlogging.basicConfig(level=logging.DEBUG)\n\n\nclass MineConfig",
        ),
    ),
    checks=("test_spec_and_config_load_without_torch",),
    says="changes logging of the whole process, .* leave logging to the program",
)
