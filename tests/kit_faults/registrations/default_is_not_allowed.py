"""The default is outside of its own range."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("config.py", "Field(1, ge=1", "Field(0, ge=1"),),
    checks=("test_the_config_survives_being_written_and_read",),
    says="greater than or equal to 1",
)
