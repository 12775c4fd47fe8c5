"""A mean over nothing is logged."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "float(self._updates)", 'float("nan")'),),
    checks=("test_the_metrics_that_it_adds_are_numbers",),
    says="step_end adds the metric 'mine/updates', which is nan: .* division by zero",
)
