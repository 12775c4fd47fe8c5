"""The average's target is made with gradients on."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "            own = self.adapter", "        own = self.adapter"),),
    checks=("test_targets_are_made_without_a_graph",),
    says="predict_x0 of average.* with gradients on.*torch.no_grad",
)
