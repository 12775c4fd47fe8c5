"""Each process decides for itself whether the run ends."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            "from fastvideo_core import Callback, hookimpl\n",
            "from fastvideo_core import Callback, hookimpl\nfrom fastvideo_core.distributed import context\n",
        ),
        (
            "callback.py",
            "    def state_dict(self)",
            (
                "    @hookimpl\n"
                "    def stop_requested(self, step: int) -> bool:\n"
                "        return step == 2 and context.rank() == 1\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="stop_requested answers .* decide by what all have",
)
