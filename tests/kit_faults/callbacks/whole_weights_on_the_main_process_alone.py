"""Gathers sharded weights on the main process alone."""

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
            "    @hookimpl\n    def after_optimizer_step(self) -> None:\n        self._updates += 1\n",
            (
                "    @hookimpl\n"
                "    def after_optimizer_step(self, method) -> None:\n"
                "        self._updates += 1\n"
                "        if context.is_main_process():\n"
                '            self._weights = [getattr(p, "full_tensor", p.detach)() for p in method.parameters()]\n'
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="after_optimizer_step calls the collective all_?gather.* on process 0 and not on the other",
)
