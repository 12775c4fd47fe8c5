"""Draws from torch's global generator."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from typing import Any\n\nimport torch\n"),
        (
            "callback.py",
            "        self._updates += 1\n",
            "        self._updates += 1\n        self._noise = torch.rand(())\n",
        ),
    ),
    checks=("test_it_leaves_the_global_generators_alone",),
    says="after_optimizer_step moves torch's global generator, .* generator of your own",
)
