"""One of two terms of the loss leaves the batch's loss_weight out."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        (
            "method.py",
            (
                "        errors = (x0 - target) ** 2 + weight * (x0 - own) ** 2\n"
                "        loss = mean_per_sample(errors, prepared.loss_weight).mean()\n"
            ),
            (
                "        loss = mean_per_sample((x0 - target) ** 2, prepared.loss_weight).mean()\n"
                "        loss = loss + weight * ((x0 - own) ** 2).mean()\n"
            ),
        ),
    ),
    checks=("test_loss_weights_are_honoured",),
    says="output of predict_x0 of student.* loss weight is 0.*give batch.loss_weight",
)
