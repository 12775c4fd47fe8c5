"""After a resume the callback counts from 0 again."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", 'self._updates = state["updates"]', "pass"),),
    checks=("test_its_state_survives_a_resume",),
    says="load_state_dict must take back all that state_dict gives",
)
