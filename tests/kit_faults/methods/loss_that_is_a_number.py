"""total_loss is a Python number."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", '{"total_loss": loss}', '{"total_loss": loss.item()}'),),
    checks=("test_losses_are_finite_scalars",),
    says="is a float, not a tensor",
)
