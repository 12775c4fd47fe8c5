"""A counter that decides is saved and not taken back."""

from tests.kit_faults.fault import AVERAGED, Fault

FAULT = Fault(
    AVERAGED,
    (("method.py", 'self.updates = int(state["updates"])', "pass"),),
    checks=("test_a_resumed_run_ends_like_one_that_was_never_interrupted",),
    says="load_checkpoint_state take it back",
)
