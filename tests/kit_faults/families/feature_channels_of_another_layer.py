"""feature_channels tells the channels of the latents."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            "(network.enter.out_channels,)",
            "(network.enter.in_channels,)",
        ),
    ),
    checks=("test_features_have_the_channels_that_are_announced",),
    says="feature_channels says.*modules that extract_features reads",
)
