"""The spec asks for a role that the method never touches."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", 'roles=("student", "teacher")', 'roles=("student", "teacher", "judge")'),),
    checks=("test_a_missing_role_is_refused_by_name",),
    says="without the role judge trains all the same.*leave it out",
)
