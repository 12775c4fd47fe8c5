"""The main process alone adds a metric that is a tensor."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from typing import Any\n\nimport torch\n"),
        (
            "callback.py",
            '        if step % self._every == 0:\n            metrics["mine/updates"] = float(self._updates)',
            (
                "        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:\n"
                '            metrics["mine/updates"] = torch.tensor(float(self._updates))'
            ),
        ),
    ),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="step_end of step 1 adds the metric 'mine/updates' on one process alone: .* each must add it",
)
