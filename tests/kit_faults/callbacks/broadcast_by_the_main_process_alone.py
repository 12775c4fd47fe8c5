"""The main process alone tells of the end."""

from tests.kit_faults.fault import DEADLINE, Fault

FAULT = Fault(
    DEADLINE,
    (("callback.py", "if context.world_size() > 1:", "if context.is_main_process() and context.world_size() > 1:"),),
    checks=("test_its_hooks_agree_in_two_processes",),
    says="stop_requested of step 1 calls the collective broadcast on process 0 and not on the other",
)
