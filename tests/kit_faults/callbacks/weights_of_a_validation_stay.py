"""Other weights are lent to a validation and not taken back."""

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
                '        for p in method.bundle["student"].trainable_parameters():\n'
                "            p.data.mul_(0.5)\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_a_validation_leaves_the_networks_as_they_were",),
    says=("after validation_start and validation_end .* of student is not as it was: .* undone in validation_end"),
)
