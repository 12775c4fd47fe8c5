from __future__ import annotations

import csv

import numpy as np
import pytest

from fastvideo_core.contracts.demo import ClipSize
from fastvideo_data.video_files import probe
from fastvideo_tools.demo.clips import CONTENTS, SHAPES, Content, balanced, coverage, read_clips, render, write_clips

SIZE = ClipSize(height=32, width=32, num_frames=9, fps=16.0)


def test_there_are_48_captions_and_balanced_takes_each_as_often_as_any_other():
    assert len({content.caption for content in CONTENTS}) == 48
    assert CONTENTS[0].caption == "a red circle moves left"
    counts = [balanced(100).count(content) for content in CONTENTS]
    assert set(counts) == {2, 3}


def test_a_clip_depends_on_its_random_stream_alone():
    first, again, other = (render(CONTENTS[5], SIZE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (9, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content.caption)
def test_the_shape_stays_inside_the_picture(content):
    for seed in range(4):
        clip = render(content, SIZE, np.random.default_rng(seed)).astype(int)
        border = np.concatenate([clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1]], axis=1)
        assert np.abs(border - np.median(clip, axis=(0, 1, 2))).max() <= 90  # an edge pixel may be covered in part


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_one_radius_have_the_area_and_centre_of_the_circle(shape):
    cover = coverage(shape, (20.3, 18.6), 8.0, 40, 40)
    across, down = np.arange(40) + 0.5, (np.arange(40) + 0.5)[:, None]
    assert cover.sum() == pytest.approx(np.pi * 64, rel=0.03)
    assert (cover * across).sum() / cover.sum() == pytest.approx(20.3, abs=0.15)
    assert (cover * down).sum() / cover.sum() == pytest.approx(18.6, abs=0.15)


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="there is no shape 'star'; allowed: circle, square, triangle"):
        coverage("star", (1, 1), 1, 4, 4)


def test_written_clips_are_videos_with_their_captions_listed(tmp_path):
    write_clips(tmp_path, 50, SIZE, seed=3)
    rows = list(csv.DictReader((tmp_path / "metadata.csv").open()))
    assert [row["caption"] for row in rows] == [content.caption for content in balanced(50)]
    assert rows[49]["video"] == "00049.mp4"
    assert probe(tmp_path / "00049.mp4").frames == 9
    written = read_clips(tmp_path, 50)[49].astype(float)
    drawn = render(Content("red", "circle", "right"), SIZE, np.random.default_rng([3, 49])).astype(float)
    assert np.abs(written - drawn).mean() < 4  # what h264 loses
