"""The roles are one text."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("plugin.py", 'roles=("student", "teacher")', 'roles="student"'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="roles is 'student', not a tuple of names",
)
