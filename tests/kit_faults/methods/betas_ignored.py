"""The optimizer has betas of its own."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            (
                "        optimizer = build_optimizer(self.student, cfg)\n"
                '        optimizer.param_groups[0]["betas"] = (0.9, 0.95)\n'
            ),
        ),
    ),
    checks=("test_optimizers_have_the_settings_of_the_run",),
    says="training.betas: .* changes nothing",
)
