"""The method turns clipping off."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def max_grad_norm(self, optimizer: Any) -> float:\n"
                "        return 0.0\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_gradients_are_clipped_as_the_run_says",),
    says="training.max_grad_norm: 0.25` does not clip the gradients of student",
)
