"""train() of the method sets the teacher to train mode too."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def on_train_start(self) -> None:\n"
                "        super().on_train_start()\n"
                "        self.train()\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_frozen_networks_stay_in_eval_mode",),
    says="teacher.transformer, which is frozen, is in train mode",
)
