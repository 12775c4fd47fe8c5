"""Each process draws an exit step of its own, so that they call the student unequally often."""

from tests.kit_faults.fault import DMD2, Fault

FAULT = Fault(
    DMD2,
    (("method.py", 'self.rng.shared("exit_step")', 'self.rng.local("exit_step")'),),
    checks=("test_all_processes_call_the_same_networks",),
    says=r"other networks in process \d.*EnforceNotMet.*self.rng.shared",
)
