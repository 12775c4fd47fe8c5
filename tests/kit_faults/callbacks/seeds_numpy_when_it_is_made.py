"""Seeds NumPy's global generator in __init__."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from typing import Any\n\nimport numpy\n"),
        ("callback.py", "        self._updates = 0\n", "        self._updates = 0\n        numpy.random.seed(0)\n"),
    ),
    checks=("test_it_leaves_the_global_generators_alone",),
    says="__init__ moves NumPy's global generator, .* generator of your own",
)
