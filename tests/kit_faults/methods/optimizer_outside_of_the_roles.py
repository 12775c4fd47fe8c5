"""An optimizer is the method's own: not clipped, not in checkpoints."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            (
                "        optimizer = build_optimizer(self.student, cfg)\n"
                "        self.own = torch.optim.AdamW(self.student.trainable_parameters(), "
                "lr=cfg.training.learning_rate)\n"
            ),
        ),
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def optimizers_schedulers_step(self, iteration: int) -> None:\n"
                "        super().optimizers_schedulers_step(iteration)\n"
                "        self.own.step()\n"
                "        self.own.zero_grad()\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_every_optimizer_that_steps_is_a_role_s",),
    says="steps a AdamW that no role has.*self.student.optimizers",
)
