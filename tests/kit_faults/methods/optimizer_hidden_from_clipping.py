"""The student's optimizer is stepped, and get_optimizers does not tell of it."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def get_optimizers(self, iteration: int) -> Any:\n"
                "        return []\n"
                "\n"
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                '        self.student.optimizers["adamw"].step()\n'
                '        self.student.lr_schedulers["adamw"].step()\n'
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_every_optimizer_that_steps_is_a_role_s",),
    says="get_optimizers does not give, so that its gradients are not clipped",
)
