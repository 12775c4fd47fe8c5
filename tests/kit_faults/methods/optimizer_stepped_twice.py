"""An optimizer is stepped by the method and by its base."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                '        self.student.optimizers["adamw"].step()\n'
                "        super().optimizers_schedulers_step(iteration)\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_every_optimizer_that_steps_is_a_role_s",),
    says=r"steps a AdamW 2 times; leave it to super\(\)",
)
