"""The optimizer has a learning rate of its own, and not the run's."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            "        optimizer = torch.optim.AdamW(self.student.trainable_parameters(), lr=1e-4)\n",
        ),
    ),
    checks=("test_optimizers_have_the_settings_of_the_run",),
    says="training.learning_rate: .* changes nothing in what becomes of student.*build_optimizer",
)
