"""The kept checkpoint is whole or absent, whatever happens while it is replaced."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from fastvideo_evaluate.watch import best


def checkpoint(out: Path, step: int) -> Path:
    folder = out / f"checkpoint-{step:06d}"
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "weights").write_text(str(step), encoding="utf-8")
    return folder


def kept(out: Path) -> str:
    return (out / "best" / "state" / "weights").read_text(encoding="utf-8")


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_it_outlives_its_checkpoint_and_takes_no_room(tmp_path: Path) -> None:
    assert best.kept_drift(tmp_path) == math.inf
    first = checkpoint(tmp_path, 1)
    best.keep(first, 1, 0.5)
    assert (first / "state" / "weights").samefile(tmp_path / "best" / "state" / "weights")
    best.keep(checkpoint(tmp_path, 2), 2, 0.25)
    assert (kept(tmp_path), best.kept_drift(tmp_path)) == ("2", 0.25)
    assert (first / "state" / "weights").read_text(encoding="utf-8") == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-000001", "checkpoint-000002"]


def test_without_hard_links_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    first = checkpoint(tmp_path, 1)
    best.keep(first, 1, 0.5)
    assert kept(tmp_path) == "1"
    assert not (first / "state" / "weights").samefile(tmp_path / "best" / "state" / "weights")


@pytest.mark.parametrize("broken", ["shutil.copytree", "os.rename"])
def test_one_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    best.keep(checkpoint(tmp_path, 1), 1, 0.5)
    second = checkpoint(tmp_path, 2)
    monkeypatch.setattr(broken, refuse)
    with pytest.raises(OSError, match="No space"):
        best.keep(second, 2, 0.25)
    monkeypatch.undo()
    assert (kept(tmp_path), best.kept_drift(tmp_path)) == ("1", 0.5)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_one_that_was_killed_between_two_names_is_put_back(tmp_path: Path) -> None:
    best.keep(checkpoint(tmp_path, 1), 1, 0.5)
    os.rename(tmp_path / "best", tmp_path / ".best.replaced")
    best.put_back(tmp_path)
    assert kept(tmp_path) == "1"
    for leftover in (".best.replaced", ".best.tmp"):
        (tmp_path / leftover / "state").mkdir(parents=True)
    best.put_back(tmp_path)
    assert kept(tmp_path) == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-000001"]
