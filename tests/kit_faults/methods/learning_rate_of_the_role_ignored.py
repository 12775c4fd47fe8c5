"""The optimizer takes training.learning_rate where the role has one of its own."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "        optimizer = build_optimizer(self.student, cfg)\n",
            (
                "        optimizer = build_optimizer(self.student, cfg)\n"
                '        optimizer.param_groups[0]["lr"] = cfg.training.learning_rate\n'
            ),
        ),
    ),
    checks=("test_roles_may_have_settings_of_their_own",),
    says="roles.student.learning_rate: 0` does not hold student still",
)
