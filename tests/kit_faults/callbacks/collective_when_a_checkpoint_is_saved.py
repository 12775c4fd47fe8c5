"""Waits for all processes in a hook of the main process."""

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
                "    def checkpoint_saved(self) -> None:\n"
                "        if torch.distributed.is_initialized():\n"
                "            torch.distributed.barrier()\n"
                "\n"
                "    def state_dict(self)"
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="checkpoint_saved calls the collective barrier, but runs on the main process alone",
)
