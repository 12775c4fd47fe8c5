from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvideo_core.contracts.demo import ClipSize
from fastvideo_data.video_files import write_video
from fastvideo_tools.demo.clips import balanced, clip_name, render
from fastvideo_tools.demo.measures import Accuracy
from fastvideo_tools.demo.picture import GAP, SIDE, TITLE_WIDTH, write_picture
from fastvideo_tools.demo.results import HELD_OUT, Row
from fastvideo_tools.demo.story import FAST, FULL

SIZE = ClipSize(height=32, width=32, num_frames=5, fps=16.0)


def row(name: str, title: str) -> Row:
    return Row(name, title, 4, 0.1, Accuracy(1.0, 1.0, 1.0, 1.0), 0.1, 0.01)


@pytest.mark.parametrize("extent", [FULL, FAST], ids=["full", "fast"])
def test_the_shown_prompts_have_every_colour_shape_and_direction(extent):
    for name in ("colour", "shape", "direction"):
        shown = {getattr(content, name) for content in extent.prompts.values()}
        assert shown == {getattr(content, name) for content in extent.classes}
    assert all(balanced(extent.samples, extent.classes)[n] == content for n, content in extent.prompts.items())


def test_the_picture_moves_and_shows_a_row_for_each_sampler(tmp_path: Path):
    rng = np.random.default_rng(0)
    for number, content in enumerate(balanced(max(FULL.shown) + 1)):
        write_video(tmp_path / HELD_OUT / clip_name(number), render(content, SIZE, rng), SIZE.fps)
        black = np.zeros((5, 32, 32, 3), np.uint8)
        write_video(tmp_path / "samples" / "student-4" / f"{number:02d}.mp4", black, SIZE.fps)
    path = write_picture(tmp_path, [row(HELD_OUT, "data"), row("student-4", "student, 4 steps")], FULL.prompts)
    with Image.open(path) as picture:
        assert picture.n_frames == 5
        first = np.asarray(picture.convert("RGB")).astype(int)
        picture.seek(4)
        last = np.asarray(picture.convert("RGB")).astype(int)
    clips, student = slice(-2 * (SIDE + GAP), -(SIDE + GAP)), slice(-(SIDE + GAP), -GAP)
    assert np.abs(last - first)[clips, TITLE_WIDTH:].max() > 50
    assert np.abs(last - first)[student].max() == 0
    assert first[student, TITLE_WIDTH : TITLE_WIDTH + SIDE].max() < 20
