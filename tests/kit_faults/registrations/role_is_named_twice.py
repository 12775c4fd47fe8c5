"""A role is named twice."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", 'roles=("student", "teacher")', 'roles=("student", "teacher", "student")'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="roles and optional_roles name .* twice",
)
