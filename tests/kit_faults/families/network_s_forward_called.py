"""The adapter calls the `forward` of its network, around what shards and compiles it."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            'handle.modules["transformer"](noisy_latents',
            'handle.modules["transformer"].forward(noisy_latents',
        ),
    ),
    checks=("test_networks_and_blocks_are_called_as_modules",),
    says="does not call a network of handle\\.modules as a module",
)
