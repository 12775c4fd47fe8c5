"""The spec is for an API that this core has not."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", "api=(1, 0)", "api=(2, 0)"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is made for API 2.0, this core has API 1.0",
)
