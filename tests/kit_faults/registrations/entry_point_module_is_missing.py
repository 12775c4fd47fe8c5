"""The entry point names a module that does not exist."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("pyproject.toml", "fastvideo_mine.plugin:PLUGIN", "fastvideo_mine.plugins:PLUGIN"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="its module fastvideo_mine.plugins does not exist",
)
