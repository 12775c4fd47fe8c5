"""The loss leaves the batch's loss_weight out."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "loss = mean_per_sample((x0 - target) ** 2, prepared.loss_weight).mean()",
            "loss = mean_per_sample((x0 - target) ** 2).mean()",
        ),
    ),
    checks=("test_loss_weights_are_honoured",),
    says="give batch.loss_weight to mean_per_sample",
)
