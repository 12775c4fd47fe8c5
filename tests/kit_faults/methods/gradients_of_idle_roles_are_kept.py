"""Only those optimizers drop their gradients that were stepped."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (
        (
            "method.py",
            "    def due_roles(",
            (
                "    def optimizers_zero_grad(self, iteration: int) -> None:\n"
                "        for optimizer in self.student.optimizers.values():\n"
                "            optimizer.zero_grad()\n"
                "\n"
                "    def due_roles("
            ),
        ),
    ),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="critic still has the gradient of .*optimizers_zero_grad must drop ALL",
)
