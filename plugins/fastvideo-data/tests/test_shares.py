"""Several processes that preprocess one source: together they make the data set of one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_buckets import BUCKETS, folders, rows
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.dispatch.output_dir import alone_in
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.preprocessing.share_account import Share
from fastvideo_data.preprocessing.shares import merge_shares, prepare_shares, preprocess_share
from fastvideo_data.preprocessing.siblings import Siblings

MANY = replace(OPTIONS, buckets=BUCKETS)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Seven clips, of which each of two and of three shares has some, and one that is too short."""
    root = tmp_path / "clips"
    root.mkdir()
    for number in range(7):
        write_clip(
            root / f"{number}.mp4", 5 + number, size=(16, 32) if number % 2 else (16, 16), caption=f"ball {number}"
        )
    write_clip(root / "short.mp4", 3, caption="short")
    return root


def run_shares(clips: Path, out: Path, count: int, options=OPTIONS) -> None:
    for index in range(count):
        preprocess_share(FakeEncoder(), clips, out, options, Share(index, count))
    assert merge_shares(FakeEncoder(), clips, out, options, count) is not None


@pytest.mark.parametrize("options", [OPTIONS, MANY])
@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_together_are_the_data_set_of_one_process(clips: Path, tmp_path: Path, count: int, options) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "one", options)
    run_shares(clips, tmp_path / "shares", count, options)
    assert rows(tmp_path / "shares") == rows(tmp_path / "one")
    assert folders(tmp_path / "shares").keys() == folders(tmp_path / "one").keys()
    one, shares = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "shares"))
    for differs in ("files", "seconds", "output_dir"):
        del one[differs], shares[differs]
    for report in (one, shares):
        report["noted"].sort(key=str)
    assert shares == one
    names = {path.name.split("-")[1] for path in (tmp_path / "shares").rglob("*.parquet")}
    assert names == {f"{index:04d}" for index in range(count)}
    encoder = FakeEncoder()
    again = preprocess(encoder, clips, tmp_path / "shares", options)
    assert (again.resumed, encoder.videos, encoder.texts) == (again.samples, 0, 0)


def test_another_number_of_shares_goes_on_where_an_earlier_one_ended(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess_share(FakeEncoder(), clips, out, OPTIONS, Share(1, 2))
    before = rows(out)
    assert merge_shares(FakeEncoder(), clips, out, OPTIONS, 2) is None
    assert not (out / "report.json").exists()
    run_shares(clips, out, 3)
    preprocess(FakeEncoder(), clips, tmp_path / "one", OPTIONS)
    assert rows(out) == rows(tmp_path / "one")
    assert {id: row for id, row in rows(out).items() if id in before} == before
    assert json.loads((out / "report.json").read_text())["resumed"] == len(before)


def test_a_share_that_was_cut_off_goes_on_alone(clips: Path, tmp_path: Path) -> None:
    class CutOff(FakeEncoder):
        def encode_videos(self, frames):
            if self.videos >= 4:
                raise KeyboardInterrupt
            return super().encode_videos(frames)

    out = tmp_path / "out"
    preprocess_share(FakeEncoder(), clips, out, OPTIONS, Share(0, 2))
    with pytest.raises(KeyboardInterrupt):
        preprocess_share(CutOff(), clips, out, OPTIONS, Share(1, 2))
    assert merge_shares(FakeEncoder(), clips, out, OPTIONS, 2) is None
    kept, files = rows(out), {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    encoder = FakeEncoder()
    preprocess_share(encoder, clips, out, OPTIONS, Share(1, 2))
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert encoder.videos == len(rows(out)) - len(kept)
    assert merge_shares(FakeEncoder(), clips, out, OPTIONS, 2) is not None
    preprocess(FakeEncoder(), clips, tmp_path / "one", OPTIONS)
    assert rows(out) == rows(tmp_path / "one")


def test_prompts_are_shared_too(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"prompt {number}\n" for number in range(9)))
    preprocess(FakeEncoder(), tmp_path / "p.txt", tmp_path / "one", OPTIONS)
    run_shares(tmp_path / "p.txt", tmp_path / "shares", 2)
    assert rows(tmp_path / "shares") == rows(tmp_path / "one")


def test_a_share_leaves_what_another_is_writing(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".part-0000-000000.parquet.partial", ".part-0001-000000.parquet.partial"):
        (out / name).write_bytes(b"half a file")
    preprocess_share(FakeEncoder(), clips, out, OPTIONS, Share(0, 2))
    assert [path.name for path in out.glob(".part*")] == [".part-0001-000000.parquet.partial"]


def test_changes_of_the_source_are_made_once_before_the_shares_begin(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess(FakeEncoder(), clips, out, OPTIONS)
    (clips / "0.txt").write_text("another ball")
    write_clip(clips / "1.mp4", 5, size=(16, 32))
    encoder = FakeEncoder()
    prepare_shares(encoder, clips, out, OPTIONS, Share(0, 2))
    assert encoder.texts == 1
    run_shares(clips, out, 2)
    preprocess(FakeEncoder(), clips, tmp_path / "new", OPTIONS)
    assert rows(out) == rows(tmp_path / "new")
    notes = json.loads((out / "report.json").read_text())["notes"]
    assert (notes["caption changed"], notes["clip changed"]) == (1, 1)
    run_shares(clips, out, 2)
    assert "caption changed" not in json.loads((out / "report.json").read_text())["notes"]


def test_not_one_sample_in_all_shares_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "a.mp4", 3, caption="a")
    with pytest.raises(DataError, match=r"not one usable sample: a.mp4: too short"):
        run_shares(tmp_path / "in", tmp_path / "out", 2)


@contextmanager
def another_process(within) -> Iterator[int]:
    """A process that has entered a context and stays there."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with within:
            os.write(tell, b"1")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def sibling(
    folder: Path, *shares: int, call: str = "call 0 in 4 shares", prepare: Callable[[], object] = str
) -> Siblings:
    return Siblings(folder, range(shares[0], shares[-1] + 1), call, prepare)


def test_siblings_of_one_call_are_let_in_and_nobody_else(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastvideo_data.preprocessing.siblings._PATIENCE", 0.2)
    (tmp_path / ".run.lock").write_text("what an earlier run left, which is longer than any of ours " * 9)
    prepared: list[str] = []
    with another_process(sibling(tmp_path, 0, 1)) as pid:
        with sibling(tmp_path, 3, prepare=lambda: prepared.append("again")) as third:
            with third.turn():
                pass
            with pytest.raises(ConfigError, match=f"another run is going on in it: process {pid} on .*in 4 shares"):
                alone_in(tmp_path, where="--output").__enter__()
        for shares in ((1,), (0,), (1, 2)):
            with pytest.raises(ConfigError, match="another process has its share"):
                sibling(tmp_path, *shares).__enter__()
        with pytest.raises(
            ConfigError, match=rf"--output \({tmp_path}\): another run is going on in it: process {pid}"
        ):
            sibling(tmp_path, 2, call="call 1 in 4 shares").__enter__()
        assert not prepared
    with another_process(alone_in(tmp_path)) as pid, pytest.raises(ConfigError, match=f"in it: process {pid} on "):
        sibling(tmp_path, 2).__enter__()
    with sibling(tmp_path, 2, prepare=lambda: prepared.append("alone")):
        assert prepared == ["alone"]
    with alone_in(tmp_path):
        pass


def test_an_error_in_the_preparation_lets_others_in(tmp_path: Path) -> None:
    def fails() -> None:
        raise DataError("no")

    with pytest.raises(DataError):
        sibling(tmp_path, 0, prepare=fails).__enter__()
    with sibling(tmp_path, 0), sibling(tmp_path, 1):
        pass
