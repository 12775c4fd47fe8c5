"""validation_end fails where validation_start was not called."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "    def state_dict(self)",
            (
                "    @hookimpl\n"
                "    def validation_start(self, step: int) -> None:\n"
                "        self._began = step\n"
                "\n"
                "    @hookimpl\n"
                "    def validation_end(self, step: int) -> None:\n"
                "        assert self._began == step\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_a_validation_leaves_the_networks_as_they_were",),
    says="failed in its hook 'validation_end': AttributeError.*set what it reads in __init__",
)
