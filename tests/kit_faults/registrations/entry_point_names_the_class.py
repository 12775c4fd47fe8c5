"""The entry point names the class in place of the spec."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("pyproject.toml", "fastvideo_mine.plugin:PLUGIN", "fastvideo_mine.method:MineMethod"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="the entry point gives .*, but fastvideo.methods takes MethodPlugin",
)
