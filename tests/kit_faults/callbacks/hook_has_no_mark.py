"""A hook lacks @hookimpl."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "    @hookimpl\n    def step_end", "    def step_end"),),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="has the name of a hook but is not marked as one.*decorate it with @hookimpl",
)
