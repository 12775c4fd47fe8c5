"""total_loss is one number per sample."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "prepared.loss_weight).mean()", "prepared.loss_weight)"),),
    checks=("test_losses_are_finite_scalars",),
    says=r"has shape \[4\], not a scalar",
)
