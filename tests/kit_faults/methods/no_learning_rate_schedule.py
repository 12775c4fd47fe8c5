"""The method makes no learning-rate schedule."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            (
                '        self.student.lr_schedulers["adamw"] = build_lr_scheduler(\n'
                '            optimizer, cfg, "student", num_updates=cfg.training.max_train_steps\n'
                "        )\n"
            ),
            "",
        ),
        ("method.py", "import build_lr_scheduler, build_optimizer", "import build_optimizer"),
    ),
    checks=("test_learning_rates_follow_the_schedule",),
    says="learning rate of student goes from .* not to 0.*build_lr_scheduler",
)
