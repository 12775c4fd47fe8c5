"""The schedule is made and never stepped."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                "        for optimizer in self.get_optimizers(iteration):\n"
                "            optimizer.step()\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_learning_rates_follow_the_schedule",),
    says="learning rate of student goes from .* not to 0.*step it once with its optimizer",
)
