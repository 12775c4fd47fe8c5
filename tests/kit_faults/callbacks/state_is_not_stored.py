"""What later steps depend on is not in state_dict."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (
        ("callback.py", 'return {"updates": self._updates}', "return {}"),
        ("callback.py", 'self._updates = state["updates"]', "pass"),
    ),
    checks=("test_a_resumed_run_logs_what_an_uninterrupted_one_does",),
    says="log mine/updates as .* state_dict must give all that later steps depend on",
)
