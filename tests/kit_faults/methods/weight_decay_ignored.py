"""The optimizer takes the run's learning rate and leaves its weight decay out."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            (
                '        rate, betas = (cfg.role_setting("student", name) for name in ("learning_rate", "betas"))\n'
                "        optimizer = torch.optim.AdamW(self.student.trainable_parameters(), lr=rate, betas=betas, "
                "weight_decay=0.0)\n"
            ),
        ),
    ),
    checks=("test_optimizers_have_the_settings_of_the_run",),
    says="training.weight_decay: .* changes nothing",
)
