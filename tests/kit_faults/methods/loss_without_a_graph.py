"""The student's output is detached."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target) ** 2", "(x0.detach() - target) ** 2"),),
    checks=("test_losses_are_finite_scalars",),
    says="has no graph.*detached",
)
