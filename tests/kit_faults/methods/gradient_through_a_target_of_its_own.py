"""The student's second target is its own output at another level, with its graph."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    escapes="a network that is trained may be called with its graph as often as a method likes: where the gradient should stop "
    "is the method's own affair",
)
