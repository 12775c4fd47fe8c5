"""An option is left out when the options are written."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "config.py",
            'description="Log the count every so many steps.")',
            'description="Log the count every so many steps.", exclude=True)',
        ),
        ("test_conformance.py", 'plugin = "mine"', 'plugin = "mine"\n    config = {"every": 3}'),
    ),
    checks=("test_the_config_survives_being_written_and_read",),
    says="read back is another configuration",
)
