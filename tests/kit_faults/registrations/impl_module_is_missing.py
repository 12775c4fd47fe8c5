"""The spec names a module that does not exist."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("plugin.py", 'impl="fastvideo_mine.callback:', 'impl="fastvideo_mine.callbacks:'),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="shows it as BROKEN: .*fastvideo_mine.callbacks",
)
