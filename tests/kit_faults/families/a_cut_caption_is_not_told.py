"""Captions are cut, and nobody is told."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "encoder.py",
            "embed(caption) for caption in captions",
            "embed(caption[:200]) for caption in captions",
        ),
    ),
    checks=("test_a_caption_that_is_cut_is_told",),
    says="does not say that it cuts them",
)
