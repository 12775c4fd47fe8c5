"""Gradients are clipped as training says where the role has a norm of its own."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    def max_grad_norm(self, optimizer: Any) -> float:\n"
                "        return self.cfg.training.max_grad_norm\n"
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_roles_may_have_settings_of_their_own",),
    says="roles.student.max_grad_norm` does not clip student's gradients",
)
