"""The teacher's weights move, which should stay."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    @torch.no_grad()\n"
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                "        super().optimizers_schedulers_step(iteration)\n"
                "        for (_, a), (_, b) in zip(self.teacher.named_parameters(), self.student.named_parameters(), "
                "strict=True):\n"
                "            a.lerp_(b, 0.1)\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="of teacher, which is frozen",
)
