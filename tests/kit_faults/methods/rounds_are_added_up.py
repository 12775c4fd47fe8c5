"""Accumulated rounds are added, not averaged."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def backward(self, loss_map: Any, outputs: Any, *, grad_accum_rounds: int = 1) -> None:\n"
                '        loss_map["total_loss"].backward()\n'
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_rounds_accumulate_to_one_large_batch",),
    says="divide the loss by grad_accum_rounds",
)
