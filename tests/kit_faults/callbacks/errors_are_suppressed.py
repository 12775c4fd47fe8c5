"""`suppress(Exception)` hides a mistake."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "from typing import Any\n", "from contextlib import suppress\nfrom typing import Any\n"),
        (
            "callback.py",
            '            metrics["mine/updates"] = float(self._updates)',
            (
                "            with suppress(Exception):\n"
                '                metrics["mine/updates"] = float(self._updates / 0)'
            ),
        ),
    ),
    checks=("test_errors_in_its_hooks_are_heard_of",),
    says="step_end hides ZeroDivisionError: .* Catch what you expect by its type",
)
