"""The loss is computed in bfloat16."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target) ** 2", "(x0.bfloat16() - target.bfloat16()) ** 2"),),
    checks=("test_losses_are_computed_in_float32",),
    says="half precision.*losses in float32",
)
