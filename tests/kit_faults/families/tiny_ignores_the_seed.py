"""`tiny` writes other weights each time."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "folder.py",
            "torch.manual_seed(seed)",
            "torch.seed()",
        ),
    ),
    checks=("test_equal_seeds_write_equal_tiny_pipelines",),
    says="equal seeds write another.*seed what draws the weights",
)
