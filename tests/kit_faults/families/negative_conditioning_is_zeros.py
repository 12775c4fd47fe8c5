"""Zeros stand in the place of an encoded negative prompt."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            'negative = embed("").to(self._device).expand_as(text)',
            "negative = torch.zeros_like(text)",
        ),
    ),
    checks=("test_the_negative_conditioning_is_an_encoded_text",),
    says="negative_conditioning is all zeros",
)
