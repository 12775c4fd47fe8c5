"""A metric is a text."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", '{"timestep": t.mean()}', '{"timestep": t.mean(), "kind": "x0"}'),),
    checks=("test_metrics_are_finite_and_hold_no_graph",),
    says="metric kind of step 1 is a str: give a number",
)
