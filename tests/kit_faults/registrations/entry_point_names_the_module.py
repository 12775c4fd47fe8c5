"""The entry point names the module in place of the spec."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("pyproject.toml", "fastvideo_mine.plugin:PLUGIN", "fastvideo_mine.plugin"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="the entry point gives module .*, but fastvideo.callbacks takes CallbackPlugin",
)
