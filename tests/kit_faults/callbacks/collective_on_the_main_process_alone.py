"""A collective inside of `if rank == 0`."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from typing import Any\n\nimport torch\n"),
        (
            "callback.py",
            "        self._updates += 1\n",
            (
                "        self._updates += 1\n"
                "        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:\n"
                "            torch.distributed.all_reduce(torch.zeros(1))\n"
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says=(
        "after_optimizer_step calls the collective allreduce on process 0 and not on the other: .* outside "
        "of `if context.is_main_process\\(\\)`"
    ),
)
