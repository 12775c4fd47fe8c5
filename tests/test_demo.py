"""The demo tells the truth: its students are better than their teacher in as many steps, and a broken method's are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastvideo_core.cli.main import main
from fastvideo_tools.demo.clips import FEW
from fastvideo_tools.demo.results import read_results

MARGIN = 0.95
"""What is left at most of the teacher's distances in as many steps; 0.13 of the energy and 0.65 of Wasserstein were."""

CHANCE = 1 / len(FEW)
"""Of captions that are right where they are ignored; 0.56 of the student's were, and 0.31 of its teacher's."""


@pytest.mark.slow
@pytest.mark.distributed
def test_the_fast_demo_shows_its_captions_and_a_student_that_is_ahead_of_its_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--fast", "--out", str(out)]) == 0
    results = read_results(out / "results.json")
    assert results.row("held-out").accuracy.caption > 0.95
    student, teacher = results.row("student-4"), results.row("teacher-4")
    assert student.energy < MARGIN * teacher.energy
    assert student.wasserstein < MARGIN * teacher.wasserstein
    assert student.accuracy.caption > teacher.accuracy.caption > 2 * CHANCE
    assert student.accuracy.caption > 3 * CHANCE
    printed = capsys.readouterr().out
    assert f"$ fastvideo-distill preprocess --family wan --model {out}/pipeline" in printed
    assert f"$ fastvideo-distill {out}/student-4.yaml" in printed
    page = (out / "demo.html").read_text()
    assert page.count("<video") == len(FEW) * len(results.rows)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_family_without_a_demo_is_an_error_that_names_what_it_offers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--family", "ltx", "--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err
    assert "the model family 'ltx' does not offer `demo`" in error
    assert "fix: take a family that does: wan\n" in error
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
