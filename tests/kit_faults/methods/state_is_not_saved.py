"""A counter that decides is in no checkpoint."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (
        ("method.py", 'return {"updates": self.updates}', "return {}"),
        ("method.py", 'self.updates = int(state["updates"])', "pass"),
    ),
    checks=("test_a_resumed_run_ends_like_one_that_was_never_interrupted",),
    says="checkpoint_state must keep what the algorithm remembers",
)
