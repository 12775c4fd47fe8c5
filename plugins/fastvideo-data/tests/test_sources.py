from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastvideo_core.errors import DataError
from fastvideo_data.preprocessing.raw_videos import Source, discover


def videos(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"video")


def captions(source: Source) -> dict[str, str]:
    return {item.id: item.caption for item in source.items}


def problems(source: Source) -> dict[str, str]:
    return {problem.item: problem.reason for problem in source.problems}


def test_sidecars_are_found_in_subfolders_too(tmp_path: Path) -> None:
    videos(tmp_path, "b.mp4", "sub/a.MOV", "lonely.mp4", "empty.mp4")
    (tmp_path / "b.txt").write_text(" a bike\n")
    (tmp_path / "sub" / "a.txt").write_text("a car")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "gone.txt").write_text("its video is gone")
    source = discover(tmp_path)
    assert source.has_videos
    assert captions(source) == {"b.mp4": "a bike", "sub/a.MOV": "a car"}
    assert [item.video for item in source.items] == [tmp_path / "b.mp4", tmp_path / "sub" / "a.MOV"]
    assert problems(source) == {
        "lonely.mp4": "missing caption",
        "empty.mp4": "missing caption",
        "gone.txt": "caption without a video",
    }


@pytest.mark.parametrize("video_key", ["video", "media_path", "video_path", "file_name"])
@pytest.mark.parametrize("caption_key", ["caption", "prompt", "text"])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_metadata_files_with_all_aliases(tmp_path: Path, kind: str, video_key: str, caption_key: str) -> None:
    videos(tmp_path, "a.mp4", "sub/b.mp4")
    rows = [
        {video_key: "a.mp4", caption_key: 'one, "quoted"', "other": 1},
        {video_key: "sub/b.mp4", caption_key: "two"},
    ]
    if kind == "csv":
        text = f'{video_key},{caption_key},other\na.mp4,"one, ""quoted""",1\nsub/b.mp4,two,\n'
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(json.dumps(row) for row in rows) + "\n"
    (tmp_path / f"metadata.{kind}").write_text(text)
    expected = {"a.mp4": 'one, "quoted"', "sub/b.mp4": "two"}
    assert captions(discover(tmp_path)) == expected
    assert captions(discover(tmp_path / f"metadata.{kind}")) == expected
    assert problems(discover(tmp_path)) == {}


def test_everything_a_metadata_file_gets_wrong_is_listed(tmp_path: Path) -> None:
    videos(tmp_path, "a.mp4", "b.mp4", "c.mp4", "extra.mp4")
    rows = [
        {"video": "a.mp4", "caption": "fine"},
        {"video": "b.mp4"},
        {"video": "c.mp4", "caption": 7},
        {"video": "gone.mp4", "caption": "x"},
        {"caption": "no video"},
        {"video": "a.mp4", "caption": "again"},
    ]
    (tmp_path / "metadata.json").write_text(json.dumps(rows))
    source = discover(tmp_path)
    assert captions(source) == {"a.mp4": "fine", "a.mp4~2": "again"}
    assert problems(source) == {
        "b.mp4": "missing caption",
        "c.mp4": "the caption is no text but int",
        "gone.mp4 (metadata.json, entry 3)": "the video file is missing",
        "metadata.json, entry 4": "the row names no video",
        "extra.mp4": "not listed in metadata.json",
    }


def test_parallel_text_files(tmp_path: Path) -> None:
    videos(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "videos.txt").write_text("a.mp4\nb.mp4\n")
    (tmp_path / "prompts.txt").write_text("one\n\ttwo\n\n")
    assert captions(discover(tmp_path)) == {"a.mp4": "one", "b.mp4": "two"}
    (tmp_path / "prompts.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"videos.txt has 2 lines, but prompts.txt has 1"):
        discover(tmp_path)
    (tmp_path / "prompts.txt").unlink()
    with pytest.raises(DataError, match=r"there is videos.txt, but no prompts.txt"):
        discover(tmp_path)


def test_prompts_alone(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("one\n\ntwo\n\n")
    source = discover(tmp_path / "my.txt")
    assert not source.has_videos
    assert captions(source) == {"prompt-000001": "one", "prompt-000003": "two"}
    assert problems(source) == {"my.txt, line 2": "empty prompt"}
    (tmp_path / "my.txt").rename(tmp_path / "prompts.txt")
    assert captions(discover(tmp_path)) == captions(source)
    (tmp_path / "prompts.txt").rename(tmp_path / "prompt.txt")  # FastVideo's name
    assert captions(discover(tmp_path)) == captions(source)


def test_sources_that_cannot_be_understood(tmp_path: Path) -> None:
    def error(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            discover(path)
        return str(caught.value)

    assert "no video and no list of samples was found" in error(tmp_path)
    assert "metadata.csv|tsv|json|jsonl" in error(tmp_path)
    assert "there is no such file or folder" in error(tmp_path / "none")
    videos(tmp_path, "a.mp4")
    assert "a.mp4: is no source of samples" in error(tmp_path / "a.mp4")
    (tmp_path / "metadata.csv").write_text("clip,caption\na.mp4,x\n")
    assert "no row names a video; the keys are caption, clip" in error(tmp_path)
    (tmp_path / "metadata.json").write_text("{}")
    assert "several files list the samples: metadata.csv, metadata.json" in error(tmp_path)
    assert "holds a dict" in error(tmp_path / "metadata.json")
    (tmp_path / "wide.txt").write_text("one", encoding="utf-16")
    assert "wide.txt: is not UTF-8 text: it is UTF-16" in error(tmp_path / "wide.txt")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert "deep.json: is no valid list of samples: it is nested too deeply" in error(tmp_path / "deep.json")
