"""The module of the class fails."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "class MineNeeds(", 'TABLE = {}["first"]\n\n\nclass MineNeeds('),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="importing fastvideo_mine.method fails: KeyError: 'first' .*method.py:",
)
