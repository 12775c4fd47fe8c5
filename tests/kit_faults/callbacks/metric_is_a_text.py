"""A text is given as a metric."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "float(self._updates)", '"many"'),),
    checks=("test_the_metrics_that_it_adds_are_numbers",),
    says="adds the metric 'mine/updates', a str, not a number",
)
