"""The state holds what no checkpoint keeps."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("callback.py", 'return {"updates": self._updates}', 'return {"updates": self._updates, "seen": {1, 2}}'),),
    checks=("test_its_state_can_be_stored",),
    says=r"state_dict\(\)\[.seen.\] is a set; a checkpoint keeps nested dicts",
)
