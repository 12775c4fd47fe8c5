"""A target that is not finite becomes 0."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target)", "(x0 - torch.nan_to_num(target))"),),
    checks=("test_what_is_not_finite_stops_the_run",),
    says="network of teacher that gives NaN.*leave out nan_to_num",
)
