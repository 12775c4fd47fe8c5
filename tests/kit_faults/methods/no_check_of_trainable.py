"""Nothing says that the student must be trainable and the teacher must not."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("config.py", "wrongly_trainable(cfg, student=True, teacher=False)", "wrongly_trainable(cfg)"),),
    checks=("test_roles_that_are_not_as_it_needs_them_are_refused",),
    says="roles.student.trainable: false` a run ends in .*check_run",
)
