from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_disk import small_disk
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.errors import DataError
from fastvideo_data.preprocessing import part_files as parts
from fastvideo_data.preprocessing.file_state import FileState
from fastvideo_data.preprocessing.part_files import DataWriteError
from fastvideo_data.preprocessing.run import PreprocessReport, preprocess


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """a and b of one clip of 5 frames, c of four: in files of three samples, c lies in two of them."""
    root = tmp_path / "clips"
    root.mkdir()
    for name, frames in (("a", 5), ("b", 5), ("c", 20)):
        write_clip(root / f"{name}.mp4", frames, caption=f"ball {name}")
    preprocess(FakeEncoder(), root, tmp_path / "out", OPTIONS)
    return root


def rows(folder: Path) -> dict[str, dict]:
    """By id; every id is there once."""
    found = [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def changes(report: PreprocessReport) -> dict[str, str]:
    return {noted.item: noted.note.split(":")[0] for noted in report.noted}


def as_new(clips: Path, tmp_path: Path) -> dict[str, dict]:
    """The rows of a data set that was written from the clips as they are now."""
    preprocess(FakeEncoder(), clips, tmp_path / "new", OPTIONS)
    return rows(tmp_path / "new")


def test_an_edited_caption_is_encoded_anew_and_no_clip(clips: Path, tmp_path: Path, capsys) -> None:
    (clips / "c.txt").write_text("a green ball, which is new")
    encoder = FakeEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert encoder.videos == 0
    assert encoder.texts == 2  # in each of the two files that hold c
    assert changes(report) == {"c.mp4": "caption changed"}
    assert "1 x caption changed, e.g. c.mp4" in capsys.readouterr().out
    assert rows(tmp_path / "out") == as_new(clips, tmp_path)
    again = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert (changes(again), encoder.texts) == ({}, 2)


def test_an_edited_prompt_is_encoded_anew(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    preprocess(FakeEncoder(), tmp_path / "prompts.txt", tmp_path / "out", OPTIONS)
    (tmp_path / "prompts.txt").write_text("one\nanother\nthree\n")
    encoder = FakeEncoder()
    report = preprocess(encoder, tmp_path / "prompts.txt", tmp_path / "out", OPTIONS)
    assert (changes(report), encoder.texts) == ({"prompt-000002": "caption changed"}, 1)
    preprocess(FakeEncoder(), tmp_path / "prompts.txt", tmp_path / "new", OPTIONS)
    assert rows(tmp_path / "out") == rows(tmp_path / "new")


def test_a_clip_replaced_under_its_name_is_encoded_anew(clips: Path, tmp_path: Path) -> None:
    write_clip(clips / "c.mp4", 11)
    encoder = FakeEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert encoder.videos == 2
    assert changes(report) == {"c.mp4": "clip changed"}
    assert report.resumed == 2
    assert rows(tmp_path / "out") == as_new(clips, tmp_path)


def test_a_replacement_of_equal_size_and_time_is_seen(clips: Path, tmp_path: Path) -> None:
    path = clips / "a.mp4"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert changes(preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)) == {"a.mp4": "clip changed"}


def test_copied_and_touched_clips_are_the_same(clips: Path, tmp_path: Path) -> None:
    os.utime(clips / "a.mp4", (1, 1))
    shutil.copytree(clips, tmp_path / "copy", copy_function=shutil.copyfile)
    for source in (clips, tmp_path / "copy"):
        encoder = FakeEncoder()
        report = preprocess(encoder, source, tmp_path / "out", OPTIONS)
        assert (encoder.videos, encoder.texts, changes(report)) == (0, 0, {})


def test_large_files_are_compared_by_pieces_from_start_to_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastvideo_data.preprocessing.file_state._PIECE", 8)
    content = bytearray(os.urandom(5000))
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    state = FileState.of(path)
    assert state.untouched(path)
    for place in (0, 7, 4992, 4999):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert not state.untouched(path)
        assert not state.same_content(path)
    path.write_bytes(content)
    assert state.same_content(path)


def test_a_replacement_that_is_too_short_leaves_no_sample(clips: Path, tmp_path: Path) -> None:
    write_clip(clips / "a.mp4", 3)
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert "a.mp4#0000" not in rows(tmp_path / "out")
    assert [skip.reason for skip in report.skipped] == ["too short: 3 frames, but a clip needs 5 (--num-frames)"]


def test_what_the_source_no_longer_lists_is_taken_out_when_asked(clips: Path, tmp_path: Path) -> None:
    before = rows(tmp_path / "out")
    (clips / "c.mp4").unlink()
    (clips / "a.txt").unlink()
    with pytest.raises(DataError) as caught:
        preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert "holds samples of 2 that" in str(caught.value)
    assert "'a.mp4' (missing caption)" in str(caught.value)
    assert "--prune" in str(caught.value)
    assert rows(tmp_path / "out") == before
    encoder = FakeEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", replace(OPTIONS, prune=True))
    assert changes(report) == {"a.mp4": "no longer in the source", "c.mp4": "no longer in the source"}
    assert (report.samples, report.files, encoder.videos) == (1, 1, 0)
    assert rows(tmp_path / "out").keys() == {"b.mp4#0000"}
    (clips / "a.txt").write_text("ball a")
    preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert encoder.videos == 1
    assert rows(tmp_path / "out") == as_new(clips, tmp_path)


def test_another_folder_of_equal_names_is_not_taken_for_replaced_clips(clips: Path, tmp_path: Path) -> None:
    before = rows(tmp_path / "out")
    for name in "abc":
        write_clip(clips / f"{name}.mp4", 7)
    with pytest.raises(DataError, match=r"not one of the 3 clips that it holds is the same in .*clips"):
        preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert rows(tmp_path / "out") == before
    preprocess(FakeEncoder(), clips, tmp_path / "out", replace(OPTIONS, prune=True))
    assert rows(tmp_path / "out") == as_new(clips, tmp_path)


@pytest.mark.parametrize("writes", [0, 1, 2])  # out with c, a's caption, c's new clips
def test_a_call_that_is_cut_off_while_it_renews_is_finished_by_the_next(
    clips: Path, tmp_path: Path, monkeypatch, writes: int
) -> None:
    write_clip(clips / "c.mp4", 11)
    (clips / "a.txt").write_text("another caption")
    original, done = parts.write_part, 0

    def write(*args: Any) -> None:
        nonlocal done
        if done == writes:
            raise CutOffError
        done += 1
        original(*args)

    monkeypatch.setattr(parts, "write_part", write)
    with pytest.raises(CutOffError):
        preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    monkeypatch.setattr(parts, "write_part", original)
    preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert rows(tmp_path / "out") == as_new(clips, tmp_path)


class CutOffError(Exception):
    """Stands in for a kill."""


def test_a_full_disk_leaves_the_files_as_they_were(clips: Path, tmp_path: Path, monkeypatch) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (clips / "a.txt").write_text("another caption")
    small_disk(monkeypatch, 100)
    with pytest.raises(DataWriteError, match="6 samples in 2 files are whole"):
        preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_samples_of_an_earlier_version_are_kept_and_named(clips: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "out").glob("*.parquet"):
        table = pq.read_table(path)
        metadata = {key: value for key, value in table.schema.metadata.items() if key != b"fastvideo.items"}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    write_clip(clips / "c.mp4", 11)
    encoder = FakeEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert encoder.videos == 0
    assert set(changes(report).values()) == {"clip not compared"}
    (clips / "c.txt").write_text("another caption")
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert changes(report)["c.mp4"] == "caption changed"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["notes"]["clip not compared"] == 3
