"""The average is computed and not stored: lerp in place of lerp_."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "mean.lerp_(now", "mean.lerp(now"),),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="average is frozen and `saved`.* not one of its weights changed.*optimizers_schedulers_step",
)
