"""The schedule is the method's own, so that it starts anew after a resume."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        ("method.py", 'self.student.lr_schedulers["adamw"] =', "self.schedule ="),
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                "        super().optimizers_schedulers_step(iteration)\n"
                "        self.schedule.step()\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_a_resumed_run_ends_like_one_that_was_never_interrupted",),
    says="schedulers are in role handles",
)
