"""The loss is a sum over the batch, not a mean."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "prepared.loss_weight).mean()", "prepared.loss_weight).sum()"),),
    checks=("test_rounds_accumulate_to_one_large_batch", "test_two_processes_give_the_gradients_of_one"),
    says="average over samples|means over samples",
)
