"""A metric keeps its graph."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", '{"timestep": t.mean()}', '{"timestep": t.mean(), "x0": x0.mean()}'),),
    checks=("test_metrics_are_finite_and_hold_no_graph",),
    says=r"metric x0 still has its graph.*detach\(\) it",
)
