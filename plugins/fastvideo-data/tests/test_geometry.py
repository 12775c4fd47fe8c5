"""The sizes that a video autoencoder takes."""

from __future__ import annotations

import pytest

from fastvideo_core.errors import DataError
from fastvideo_data.preprocessing.buckets import Buckets
from fastvideo_data.video_sizes import VideoGeometry


def test_sizes_below_the_least_are_refused_with_the_nearest_that_fit() -> None:
    geometry = VideoGeometry(8, 1, 32, 24.0, least_size=64)
    geometry.check(height=64, width=96, num_frames=9)
    with pytest.raises(DataError) as raised:
        geometry.check(height=32, width=70, num_frames=9)
    text = str(raised.value)
    assert "height is 32" in text
    assert "width is 70" in text
    assert "positive multiples of 32 from 64 on" in text
    assert text.count("use 64 or 96") == 2


def test_fewer_frames_than_the_least_are_refused_alone_and_among_buckets() -> None:
    geometry = VideoGeometry(4, 1, 16, 16.0, least_frames=5)
    Buckets((16 * 16,), (1.0,), (5,)).check(geometry)
    for check in (
        lambda: geometry.check(height=16, width=16, num_frames=1),
        lambda: Buckets((16 * 16,), (1.0,), (1, 5)).check(geometry),
    ):
        with pytest.raises(DataError, match=r"num_frames is 1\n.*multiples of 4 plus 1 from 5 on\n.*use 5"):
            check()


def test_without_a_least_size_one_multiple_is_enough() -> None:
    VideoGeometry(4, 1, 16, 16.0).check(height=16, width=16, num_frames=5)
