"""A metric keeps the graph of a step."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "step: int, metrics", "method: Any, step: int, metrics"),
        ("callback.py", "float(self._updates)", "sum(p.square().sum() for p in method.parameters())"),
    ),
    checks=("test_the_metrics_that_it_adds_are_numbers",),
    says="adds the metric 'mine/updates', a tensor with its graph, .* detach it",
)
