"""The critic's loss reaches back into the student."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (("method.py", "            x = x.detach()\n", ""),),
    checks=("test_losses_are_finite_scalars",),
    says=r"reaches into the graph of an earlier phase.*detach\(\)",
)
