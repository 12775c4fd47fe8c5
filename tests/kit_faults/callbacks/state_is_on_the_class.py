"""What it remembers is on the class, for all runs of a process."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", "    order = 0", "    seen: list[int] = []\n    order = 0"),
        ("callback.py", "        self._updates += 1\n", "        self._updates += 1\n        self.seen.append(1)\n"),
        (
            "callback.py",
            'return {"updates": self._updates}',
            'return {"updates": self._updates, "seen": len(self.seen)}',
        ),
    ),
    checks=("test_a_resumed_run_logs_what_an_uninterrupted_one_does",),
    says="two equal runs in one process, .* belongs on `self`",
)
