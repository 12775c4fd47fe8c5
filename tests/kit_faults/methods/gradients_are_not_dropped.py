"""Gradients are added to those of the last step."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def optimizers_zero_grad(self, iteration: int) -> None:\n"
                "        pass\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="would be added to the next step's; optimizers_zero_grad must drop ALL",
)
