"""`except Exception: pass` hides a mistake."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        (
            "callback.py",
            '            metrics["mine/updates"] = float(self._updates)',
            (
                "            try:\n"
                '                metrics["mine/updates"] = float(self._update)\n'
                "            except Exception:\n"
                "                pass"
            ),
        ),
    ),
    checks=("test_errors_in_its_hooks_are_heard_of",),
    says="step_end hides AttributeError: .*no attribute '_update'.* Catch what you expect by its type",
)
