"""A validation leaves the networks in eval mode."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "    def state_dict(self)",
            (
                "    @hookimpl\n"
                "    def validation_start(self, method: Any) -> None:\n"
                '        method.bundle["student"].modules["transformer"].eval()\n'
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_a_validation_leaves_the_networks_as_they_were",),
    says="transformer.training of student is not as it was",
)
