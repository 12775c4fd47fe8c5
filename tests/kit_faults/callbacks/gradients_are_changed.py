"""Gradients are clipped in place."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "    def state_dict(self)",
            (
                "    @hookimpl\n"
                "    def before_optimizer_step(self, method: Any) -> None:\n"
                '        for p in method.bundle["student"].trainable_parameters():\n'
                "            if p.grad is not None:\n"
                "                p.grad.clamp_(-0.01, 0.01)\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_training_with_it_gives_the_same_weights",),
    says="ends with other weights, .* change weights or gradients in place",
)
