"""The teacher's target is made with gradients on."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "with torch.no_grad():", "with torch.enable_grad():"),),
    checks=("test_targets_are_made_without_a_graph",),
    says="predict_x0_guided of teacher with gradients on.*torch.no_grad",
)
