"""Counts afresh in a hook that runs before the state comes back, and again after it."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", '        self._updates = state["updates"]', "        self._updates = 0"),
        ("callback.py", 'return {"updates": self._updates}', 'return {"version": 1}'),
    ),
    checks=("test_a_resumed_run_logs_what_an_uninterrupted_one_does",),
    says="state_dict must give all that later steps depend on",
)
