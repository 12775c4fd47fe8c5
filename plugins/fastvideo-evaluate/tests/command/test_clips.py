"""Which real clips stand beside which prompt, and how they are brought to the size of the videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.video_files import read_frames, write_video
from fastvideo_evaluate.command.clips import open_clips
from fastvideo_evaluate.command.sampling import Shared
from fastvideo_evaluate.command.videos import Videos

CAPTIONS = ["a cat", "a dog", "a dog", "a cat", "a cat", "a dog"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six clips of one grey each, thirty steps apart, of 32 x 48 pixels and 8 frames at 16 a second."""
    real = tmp_path / "real"
    for number in range(6):
        write_video(real / f"{number}.mp4", np.full((8, 32, 48, 3), 40 + 30 * number, np.uint8), 16.0)
    rows = [f"{number}.mp4,{caption}" for number, caption in enumerate(CAPTIONS)]
    (real / "metadata.csv").write_text("\n".join(["video,caption", *rows]) + "\n")
    return real


def asked(*captions: str, seeds: int = 1) -> Shared:
    return Shared([ValidationPrompt(caption, seed=0) for caption in captions], seeds)


def test_a_prompt_has_clips_of_its_caption_and_equal_prompts_share_them_out(folder: Path) -> None:
    def chosen(shared: Shared) -> list[list[str]]:
        return [[path.stem for path in files] for files in open_clips(str(folder), shared).files]

    assert chosen(asked("a dog", "a cat", seeds=2)) == [["1", "2"], ["0", "3"]]
    assert chosen(asked("a cat", "a dog", "a cat")) == [["0"], ["1"], ["3"]]
    with pytest.raises(ConfigError, match="has 3 clips of 'a cat', and 4 are compared"):
        open_clips(str(folder), asked("a cat", "a cat", seeds=2))
    with pytest.raises(ConfigError, match="has 0 clips of 'a cow', and 1 are compared"):
        open_clips(str(folder), asked("a cow"))


def test_clips_get_the_size_the_rate_and_the_length_of_the_videos(folder: Path, tmp_path: Path) -> None:
    videos = Videos(tmp_path / "out", asked("a cat", "a dog").prompts, {})
    for number in range(2):
        videos.add("student", number, 0, SampledVideo(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), 8.0))
    clips = open_clips(str(folder), asked("a dog", "a cat"))
    clips.add_to(videos, "student")
    for number, grey in enumerate((70, 40)):
        frames = read_frames(videos.path("clips", number, 0))
        assert frames.shape == (3, 16, 16, 3)
        assert frames.mean() == pytest.approx(grey, abs=8)
    other = open_clips(str(folder), asked("a dog", "a dog"))
    assert (other.identity, clips.identity) == (
        open_clips(str(folder), asked("a dog", "a dog")).identity,
        clips.identity,
    )
    assert other.identity != clips.identity


def test_a_clip_that_is_too_short_is_told(folder: Path, tmp_path: Path) -> None:
    videos = Videos(tmp_path / "out", asked("a cat").prompts, {})
    videos.add("student", 0, 0, SampledVideo(torch.zeros(5, 16, 16, 3, dtype=torch.uint8), 8.0))
    with pytest.raises(DataError, match=r"0\.mp4: has 4 frames at 8 a second, and the videos have 5"):
        open_clips(str(folder), asked("a cat")).add_to(videos, "student")
