"""The API version is a text."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (("plugin.py", "api=(1, 0)", 'api="1.0"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="api is '1.0', not .major, minor. as in api=.1, 0.",
)
