"""The class derives from nothing."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", "class MineCallback(Callback):", "class MineCallback:"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is MineCallback, which is no Callback: subclass fastvideo_core.Callback",
)
