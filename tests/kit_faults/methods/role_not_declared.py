"""The spec does not name a role that the method asks for."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", 'roles=("student", "teacher")', 'roles=("student",)'),),
    checks=("test_it_declares_every_role_that_it_asks_for",),
    says="role that its spec does not declare.*add it to `roles`",
)
