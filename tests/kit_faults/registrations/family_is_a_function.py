"""The spec names a build function."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        ("family.py", "class MineFamily(", "def build_mine(cfg):\n    return None\n\n\nclass MineFamily("),
        ("plugin.py", "family:MineFamily", "family:build_mine"),
    ),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is <function build_mine .*: the spec names the class",
)
