"""Folders of raw samples as they come: hidden files, links, files that are no videos, texts in other encodings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageOps
from test_sources import captions, problems, videos
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.loading.file_scan import scan_files
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.raw_videos import discover
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import picture_size, read_frames

HIDDEN = ("._a", ".ipynb_checkpoints/a", "__MACOSX/a", "sub/.trash/a")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    videos(tmp_path / "clips", "a.mp4")
    (tmp_path / "clips" / "a.txt").write_text("a")
    return tmp_path / "clips"


def test_hidden_files_and_folders_are_no_samples(clips: Path) -> None:
    for name in HIDDEN:
        videos(clips, f"{name}.mp4")
        (clips / f"{name}.txt").write_bytes(b"\0\xff")
    assert captions(discover(clips)) == {"a.mp4": "a"}
    assert problems(discover(clips)) == {}
    (clips / "metadata.csv").write_text("video,caption\na.mp4,a\n")
    assert problems(discover(clips)) == {}


def test_hidden_files_and_folders_are_no_data_set(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    write_clip(clips / "a.mp4", 5, caption="a")
    preprocess(FakeEncoder(), clips, out, OPTIONS)
    (out / "part-000000.parquet").rename(out / "part-000000.PARQUET")
    assert [file.path.name for file in scan_files(out)] == ["part-000000.PARQUET"]
    (out / "part-000000.PARQUET").rename(out / "part-000000.parquet")
    names = [file.path.name for file in scan_files(out)]
    for name in HIDDEN:
        videos(out, f"{name}.parquet")
    assert [file.path.name for file in scan_files(out)] == names
    assert preprocess(FakeEncoder(), clips, out, OPTIONS).resumed == 1
    alone = tmp_path / "alone"
    videos(alone, "._a.parquet")
    with pytest.raises(DataError, match=r"there is no \*.parquet file"):
        scan_files(alone)


def test_links_to_folders_are_followed_once(clips: Path, tmp_path: Path) -> None:
    videos(tmp_path / "elsewhere", "b.mp4")
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    for name in ("linked", "linked_again"):
        (clips / name).symlink_to(tmp_path / "elsewhere")
    (clips / "up").symlink_to(clips)
    (tmp_path / "elsewhere" / "back").symlink_to(clips)
    assert captions(discover(clips)) == {"a.mp4": "a", "linked/b.mp4": "b"}
    (clips / "above").symlink_to(clips / "sub")  # and what is there without links keeps its name
    videos(clips / "sub", "c.mp4")
    (clips / "sub" / "c.txt").write_text("c")
    (clips / "linked" / "sub").symlink_to(clips / "sub")
    assert captions(discover(clips)) == {"a.mp4": "a", "linked/b.mp4": "b", "sub/c.mp4": "c"}
    (clips / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    assert problems(discover(clips)) == {"gone.mp4 (gone.mp4)": "the video file is missing"}


def test_every_caption_that_is_no_text_is_listed_in_one_run(clips: Path) -> None:
    videos(clips, "latin.mp4", "wide.mp4", "nul.mp4")
    (clips / "latin.txt").write_bytes("un café".encode("latin-1"))
    (clips / "wide.txt").write_text("a", encoding="utf-16")
    (clips / "nul.txt").write_bytes(b"a\0b")
    source = discover(clips)
    assert captions(source) == {"a.mp4": "a"}
    assert {name: reason.split(":")[0] for name, reason in problems(source).items()} == {
        "latin.mp4": "the caption is not UTF-8 text",
        "wide.mp4": "the caption is not UTF-8 text",
        "nul.mp4": "the caption holds NUL characters",
    }
    os.mkfifo(clips / "pipe.txt")
    videos(clips, "pipe.mp4")
    assert problems(discover(clips))["pipe.mp4"] == "the caption is no file that can be read"
    (clips / "p.txt").write_bytes(b"caf\xe9\none\nfor\xeat\n")
    prompts = discover(clips / "p.txt")
    assert captions(prompts) == {"prompt-000002": "one"}
    assert problems(prompts).keys() == {"p.txt, line 1", "p.txt, line 3"}


def test_a_name_that_is_not_utf8_is_skipped(clips: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        videos(clips, f"{name}.mp4")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such name")
    (clips / f"{name}.txt").write_text("x")
    assert problems(discover(clips)) == {"caf\\udce9.mp4": "the name of the file is not UTF-8 text"}


def test_capital_suffixes_are_suffixes(clips: Path) -> None:
    videos(clips, "B.MP4")
    (clips / "B.TXT").write_text("b")
    assert captions(discover(clips)) == {"B.MP4": "b", "a.mp4": "a"}
    (clips / "PROMPTS.TXT").write_text("one\n")
    assert captions(discover(clips / "PROMPTS.TXT")) == {"prompt-000001": "one"}
    (clips / "PROMPTS.TXT").unlink()
    (clips / "METADATA.CSV").write_text("video,caption\nB.MP4,x\n")
    assert captions(discover(clips)) == captions(discover(clips / "METADATA.CSV")) == {"B.MP4": "x"}


def test_media_of_other_kinds_are_named_with_what_to_do(clips: Path) -> None:
    for name in ("g.gif", "m.MPG", "i.png"):
        videos(clips, name)
        (clips / name).with_suffix(".txt").write_text("x")
    assert captions(discover(clips)) == {"a.mp4": "a"}
    assert problems(discover(clips)) == {
        "g.gif": ".gif is not read from a folder: convert it to .mp4, or list it in metadata.csv",
        "m.MPG": ".mpg is not read from a folder: convert it to .mp4, or list it in metadata.csv",
        "i.png": "is an image: a sample of one frame, which --num-frames 1 takes, or --frames 1,...",
    }
    (clips / "metadata.csv").write_text("video,caption\ng.gif,g\ni.png,i\n")
    assert captions(discover(clips)) == {"g.gif": "g"}
    assert problems(discover(clips))["m.MPG"] == "not listed in metadata.csv"
    assert captions(discover(clips, images=True)) == {"g.gif": "g", "i.png": "i"}
    (clips / "metadata.csv").unlink()
    (clips / "a.mp4").unlink()
    (clips / "prompts.txt").write_text("one\n")
    assert not discover(clips).has_videos
    assert problems(discover(clips)).keys() == {"g.gif", "m.MPG", "i.png"}
    (clips / "prompts.txt").unlink()
    with pytest.raises(DataError, match=r"no video .* 3 other media: g.gif .gif is not read from a folder"):
        discover(clips)


def test_images_are_samples_of_one_frame(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "a.mp4", 5, caption="a")
    for name in ("a.png", "i.png", "j.JPEG", "k.webp"):
        Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(clips / name)
        (clips / name).with_suffix(".txt").write_text(name)
    one = PreprocessOptions(height=16, width=16, num_frames=1)
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", one)
    assert report.samples == 4
    assert [(skip.item, skip.reason) for skip in report.skipped] == [
        ("a.png", "is an image beside a video of the same name, which is taken")
    ]
    rows = pq.read_table(tmp_path / "out" / "part-000000.parquet").to_pylist()
    assert {row["file_name"]: row["media_type"] for row in rows} == {
        "a.mp4": "video",
        **dict.fromkeys(["i.png", "j.JPEG", "k.webp"], "image"),
    }
    assert preprocess(FakeEncoder(), clips, tmp_path / "videos", OPTIONS).samples == 1


def test_images_are_seen_as_their_files_want_them_seen(tmp_path: Path) -> None:
    """Turned and mirrored by EXIF, on white where they are transparent, with the colours of their palette."""
    red, blue, white = (200, 0, 0), (0, 0, 200), (255, 255, 255)
    picture = np.full((16, 32, 3), red, np.uint8)
    picture[:, 16:] = blue
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        for suffix in ("png", "jpg", "webp"):
            Image.fromarray(picture).save(tmp_path / f"{orientation}.{suffix}", exif=exif)
            (frame,) = read_frames(tmp_path / f"{orientation}.{suffix}")
            upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"{orientation}.{suffix}")))
            assert frame.shape == upright.shape
            assert np.abs(frame.astype(int) - upright).mean() < 4
            assert picture_size(tmp_path / f"{orientation}.{suffix}") == upright.shape[:2]
    alpha = Image.fromarray(picture)
    alpha.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 16, axis=1).repeat(16, axis=0)))
    alpha.save(tmp_path / "alpha.png")
    palette = Image.fromarray(picture).quantize(4)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "hole.png", transparency=palette.getpixel((0, 0)))
    Image.fromarray(picture).convert("L").save(tmp_path / "grey.png")
    colours = {name: read_frames(tmp_path / f"{name}.png")[0] for name in ("alpha", "palette", "hole", "grey")}
    found = {name: [tuple(map(int, frame[8, x])) for x in (3, 28)] for name, frame in colours.items()}
    assert found["alpha"] == found["hole"] == [white, blue]
    assert found["palette"] == [red, blue]
    assert len({*found["grey"][0]}) == 1
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken.png"):
        read_frames(tmp_path / "broken.png")


@pytest.mark.parametrize(("output", "found"), [("clips", "is the folder of the raw"), (".", "holds the raw")])
def test_a_data_set_is_not_put_where_its_clips_are(clips: Path, tmp_path: Path, output: str, found: str) -> None:
    (clips / "metadata.csv").write_text("video,caption\na.mp4,a\n")
    (tmp_path / "link").symlink_to(tmp_path / output)
    for source in (clips, clips / "metadata.csv"):
        for target in (tmp_path / output, tmp_path / "link"):
            with pytest.raises(ConfigError, match=found):
                preprocess(FakeEncoder(), source, target, OPTIONS)


@pytest.mark.parametrize("target", ["clips", "clips/deep", "."])
def test_a_data_set_is_not_put_where_a_list_elsewhere_has_its_clips(tmp_path: Path, target: str) -> None:
    videos(tmp_path / "clips", "deep/a.mp4", "b.mp4")
    (tmp_path / "lists").mkdir()
    rows = [f"{tmp_path / 'clips' / name},x" for name in ("deep/a.mp4", "b.mp4")]
    (tmp_path / "lists" / "m.csv").write_text("\n".join(["video,caption", *rows]))
    with pytest.raises(ConfigError, match="the raw samples"):
        preprocess(FakeEncoder(), tmp_path / "lists" / "m.csv", tmp_path / target, OPTIONS)
    assert not list(tmp_path.rglob("*.json"))


def test_a_source_with_an_impossible_name_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        preprocess(FakeEncoder(), tmp_path / ("x" * 5000), tmp_path / "out", OPTIONS)


def test_a_data_set_inside_the_clips_is_no_clip(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "a.mp4", 5, caption="a")
    first = preprocess(FakeEncoder(), clips, clips / "encoded", OPTIONS)
    again = preprocess(FakeEncoder(), clips, clips / "encoded", OPTIONS)
    assert (first.samples, again.samples, again.resumed, again.skipped) == (1, 1, 1, ())
