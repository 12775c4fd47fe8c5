"""Sampled videos have another frame rate than the clips of training."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "FPS = 16.0",
            "FPS = 24.0",
        ),
    ),
    checks=("test_a_video_has_the_size_and_rate_that_are_asked_for",),
    says="play too fast or too slow",
)
