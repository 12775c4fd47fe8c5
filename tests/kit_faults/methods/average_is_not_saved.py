"""The average changes and is in no checkpoint."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", "        average.saved = True\n", ""),),
    checks=("test_an_update_changes_the_due_roles_and_nothing_else",),
    says="of average, which is frozen .*`saved`",
)
