"""single_train_step gives a loss, and not losses, outputs and metrics."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", 'return {"total_loss": loss}, {}, {"timestep": t.mean()}', 'return {"total_loss": loss}'),),
    checks=("test_losses_are_finite_scalars",),
    says=r"not \(loss_map, outputs, metrics\)",
)
