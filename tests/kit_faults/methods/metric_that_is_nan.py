"""A metric is the mean of nothing."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", '{"timestep": t.mean()}', '{"timestep": t.mean(), "late": t[t > 2000].mean()}'),),
    checks=("test_metrics_are_finite_and_hold_no_graph",),
    says="metric late of step 1 is nan: is it the mean of nothing",
)
