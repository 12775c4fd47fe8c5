"""Waits for all processes in the hook of a failing run."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from typing import Any\n\nimport torch\n"),
        (
            "callback.py",
            "    def state_dict(self)",
            (
                "    @hookimpl\n"
                "    def exception(self) -> None:\n"
                "        if torch.distributed.is_initialized():\n"
                "            torch.distributed.barrier()\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="exception calls the collective barrier, but may run when the others are gone",
)
