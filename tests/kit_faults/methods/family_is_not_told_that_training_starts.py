"""The method's on_train_start keeps the adapter's from being called."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def on_train_start(self) -> None:\n"
                "        self.begun = True\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_the_family_is_told_that_training_starts",),
    says=r"on_train_start was called 0 times.*super\(\)",
)
