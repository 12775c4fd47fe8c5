"""All schedules are stepped in every step, also those of roles that are not updated."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (
        (
            "method.py",
            "    def due_roles(",
            (
                "    def get_lr_schedulers(self, iteration: int) -> list[Any]:\n"
                "        return [s for handle in self.bundle for s in handle.lr_schedulers.values()]\n"
                "\n"
                "    def due_roles("
            ),
        ),
    ),
    checks=("test_learning_rates_follow_the_schedule",),
    says="learning rate of student is 0 in step .* step it once with its optimizer",
)
