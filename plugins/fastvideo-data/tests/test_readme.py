"""The README's examples do what they say."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
from tiny_data import FakeEncoder, write_clip

from fastvideo_data import preprocess_command as command
from fastvideo_data.preprocessing.run import preprocess

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with clips, which commands run in."""
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for n in range(2):
        write_clip(Path(f"clips/{n}.mp4"), 77, size=(16, 24), caption=f"clip {n}")
    return tmp_path


def test_the_command_s_options_are_understood_and_its_data_is_read(at_home: Path) -> None:
    (line,) = blocks("bash")
    words = shlex.split(line.replace("\\\n", ""))
    assert words[:2] == ["fastvideo-distill", "preprocess"]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(words[2:])
    options = command._options(args, has_videos=True)
    assert (options.height, options.width, options.num_frames) == (480, 832, 77)
    preprocess(FakeEncoder(), args.input, args.output, options)

    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    assert names["latents"].shape == (2, 3, 20, 1, 1)
    assert names["text"].shape == (2, 6, 2)
    assert set(names["captions"]) == {"clip 0", "clip 1"}
    assert names["again"].state_dict() == names["state"]


def test_a_data_set_of_one_s_own_is_written_and_read(at_home: Path) -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[1], names)
    batch = next(names["data"].loader(batch_size=1, seed=0))
    assert torch.equal(batch["trajectory_states"][0], names["tensors"]["trajectory_states"])
