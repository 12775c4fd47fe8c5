"""Draws from Python's module random."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "import random\nfrom typing import Any\n"),
        (
            "callback.py",
            "        self._updates += 1\n",
            "        self._updates += 1\n        self._chance = random.random()\n",
        ),
    ),
    checks=("test_it_leaves_the_global_generators_alone",),
    says="after_optimizer_step moves Python's module random, .* generator of your own",
)
