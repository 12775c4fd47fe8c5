"""Weights are decayed in place."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "    @hookimpl\n    def after_optimizer_step(self) -> None:\n        self._updates += 1\n",
            (
                "    @hookimpl\n"
                "    def after_optimizer_step(self, method) -> None:\n"
                "        self._updates += 1\n"
                '        for p in method.bundle["student"].trainable_parameters():\n'
                "            p.data.mul_(0.999)\n"
            ),
        ),
    ),
    checks=("test_training_with_it_gives_the_same_weights",),
    says="ends with other weights, .* change weights or gradients in place",
)
