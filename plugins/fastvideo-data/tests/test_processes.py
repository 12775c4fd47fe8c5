"""The command `preprocess` with processes that fail and go on, and with options that do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_buckets import rows
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.cli.main import main
from fastvideo_data.preprocessing.run import preprocess

FAMILY = """
import os, time
from fastvideo_core import ModelFamily, PluginConfig, register_model
from fastvideo_core.errors import DataError, Problem
from tiny_data import FakeEncoder

class Encoder(FakeEncoder):
    def encode_videos(self, frames):
        if os.environ["RANK"] == os.environ.get("FAILS"):
            raise DataError(Problem("this share is broken"))
        while self.videos >= 3 and "HANGS" in os.environ:
            time.sleep(1)  # for ever: the test ends it
        return super().encode_videos(frames)

@register_model("toy", config=PluginConfig)
class Toy(ModelFamily):
    def build(self, cfg):
        raise NotImplementedError

    def encoder(self, *_, **__):
        return Encoder()
"""


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for number in range(12):
        write_clip(tmp_path / "clips" / f"{number}.mp4", 5, caption=f"ball {number}")
    return tmp_path / "clips"


@pytest.mark.slow
@pytest.mark.distributed
def test_when_a_process_fails_all_end_and_the_next_call_goes_on(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(FAMILY)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fastvideo_core", "preprocess", "--plugin", str(tmp_path / "toy.py")]
    command += ["--family", "toy", "--model", "m", "--input", str(clips), "--output", str(out), "--clips", "all"]
    command += [
        "--height",
        "16",
        "--width",
        "16",
        "--num-frames",
        "5",
        "--num-processes",
        "2",
        "--samples-per-file",
        "2",
    ]

    def started(**variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **variables}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    with started(FAILS="1", HANGS="yes") as failed:
        output, error = failed.communicate()
    assert failed.returncode == 2, error
    assert error.count("this share is broken") == 1
    assert "Traceback" not in error
    assert "samples in" not in output
    assert not (out / "report.json").exists()
    assert not list(out.rglob("part-0001-*"))
    kept = rows(out)

    with started() as whole:
        output, error = whole.communicate()
    assert whole.returncode == 0, error
    before = f" ({len(kept)} were there before)" if kept else ""
    assert f"12 samples in {len(list(out.glob('*.parquet')))} files in {out}{before}" in output
    one = replace(OPTIONS, samples_per_file=2)
    preprocess(FakeEncoder(), clips, tmp_path / "one", one)
    assert rows(out) == rows(tmp_path / "one")
    assert not (out / ".shares").exists()


BASE = ["preprocess", "--family", "wan", "--model", "m", "--output", "out"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--area", "480x832"], "--frames is not given"),
        (["--frames", "1,33"], "--area is not given"),
        (["--buckets"], "--area, --frames is not given"),
        (
            ["--area", "480x832", "--frames", "33", "--width", "64"],
            "--width make clips of one size, and --area, --frames",
        ),
        ([], "--height, --width, --num-frames is not given"),
    ],
)
def test_options_of_buckets_come_together_and_not_with_one_size(
    clips: Path, options: Sequence[str], found: str, capsys
) -> None:
    assert main([*BASE, "--input", str(clips), *options]) == 2
    error = capsys.readouterr().err
    assert found in error
    assert "Traceback" not in error


def test_prompts_alone_have_no_buckets(tmp_path: Path, capsys) -> None:
    (tmp_path / "p.txt").write_text("a cat\n")
    assert main([*BASE, "--input", str(tmp_path / "p.txt"), "--area", "480x832", "--frames", "1"]) == 2
    assert "holds prompts alone; --area, --frames are for videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--area", "480", "an area such as 480x832"),
        ("--aspects", "2:1:7", "FROM:TO:COUNT such as 0.5:2:7"),
        ("--frames", "0,33", "a list of frame counts such as 1,33,81"),
        ("--shard", "8/8", "0/8 to 7/8 are those of 8 (in Slurm, --array=0-7)"),
        ("--shard", "1", "0/8 to 7/8"),
    ],
)
def test_values_that_are_none_say_what_is(option: str, value: str, allowed: str, capsys) -> None:
    assert main([*BASE, "--input", "x", option, value]) == 2
    assert allowed in " ".join(capsys.readouterr().err.split())
