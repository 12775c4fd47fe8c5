"""The network subtracts the mean over the batch."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "network.py",
            "        out: Tensor = self.leave(hidden)",
            ("        hidden = hidden - hidden.mean(0, keepdim=True)\n        out: Tensor = self.leave(hidden)"),
        ),
    ),
    checks=("test_samples_of_a_batch_do_not_influence_each_other",),
    says="leak between samples",
)
