"""__init__ does not take the configuration."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            (
                "def __init__(self, config: MineConfig) -> None:\n"
                "        super().__init__(config)\n"
                "        self._every = config.every"
            ),
            "def __init__(self) -> None:\n        self._every = 1",
        ),
    ),
    checks=("test_it_is_built_from_its_config_and_its_hooks_exist",),
    says="cannot be made: TypeError.*it gets its section of run.yaml alone",
)
