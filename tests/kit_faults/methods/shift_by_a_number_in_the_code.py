"""Timesteps are shifted by a number in the code, and by the family's shift after that."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    escapes="a method may train at the noise levels that it likes: the kit sees that the run's shift is applied once",
)
