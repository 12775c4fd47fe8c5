"""A hook takes an argument that it is not given."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "self, step: int, metrics", "self, step: int, loss: Any, metrics"),),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="takes loss.*which the hook does not give",
)
