"""Smooths the loss under its own name."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "        if step % self._every",
            '        metrics["total_loss"] = 0.5 * metrics["total_loss"]\n        if step % self._every',
        ),
    ),
    checks=("test_the_metrics_that_it_adds_are_numbers",),
    says="changes the metric 'total_loss', which is another's: add one under a name of your own",
)
