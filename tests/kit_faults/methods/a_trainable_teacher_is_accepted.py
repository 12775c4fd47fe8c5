"""Nothing says that the teacher must not be trainable."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("config.py", "wrongly_trainable(cfg, student=True, teacher=False)", "wrongly_trainable(cfg, student=True)"),),
    checks=("test_roles_that_are_not_as_it_needs_them_are_refused",),
    says="roles.teacher.trainable: true` .*teacher never is; refuse it in the config's check_run",
)
