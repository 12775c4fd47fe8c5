"""Between its turns the student is updated, and not the critic."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (("method.py", "else [self.critic]\n", "else [self.student]\n"),),
    checks=("test_gradients_reach_the_due_roles_only",),
    says="updates student, but it has no gradient|leaves a gradient .* in critic, which is not due",
)
