"""The critic's loss leaves the batch's loss_weight out, the student's does not."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (
        (
            "method.py",
            "self.adapter.prediction_target(clean, noise, t), batch.loss_weight, weight)",
            "self.adapter.prediction_target(clean, noise, t), None, weight)",
        ),
    ),
    checks=("test_loss_weights_are_honoured",),
    says="output of predict_noise of critic.* loss weight is 0.*give batch.loss_weight",
)
