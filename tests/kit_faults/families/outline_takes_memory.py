"""`check` builds the whole network."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "folder.py",
            '    with torch.device("meta"):\n        return Network()',
            "    return Network()",
        ),
    ),
    checks=("test_the_outline_is_of_the_networks_that_are_built",),
    says="build it on the meta device",
)
