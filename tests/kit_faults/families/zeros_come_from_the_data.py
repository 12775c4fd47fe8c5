"""Data-free training gets the data's latents."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            'if latents_source == "zeros":',
            'if latents_source == "noise":',
        ),
    ),
    checks=("test_zeros_have_the_shape_of_the_data",),
    says='latents_source="zeros" gives latents that are not zero',
)
