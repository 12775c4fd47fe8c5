"""The network calls the `forward` of its blocks, around what checkpoints and shards them."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "network.py",
            "hidden = block(hidden)",
            "hidden = block.forward(hidden)",
        ),
    ),
    checks=("test_networks_and_blocks_are_called_as_modules",),
    says="no block of block_classes, .*never their `forward`",
)
