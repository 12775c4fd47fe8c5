"""What the demo's page says of how its students came to be, and of their advantage."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from fastvideo_core.contracts.demo import ClipSize, DemoData, DemoRun, FamilyDemo, MethodDemo
from fastvideo_tools.demo.measures import Accuracy
from fastvideo_tools.demo.page import write_page
from fastvideo_tools.demo.results import Results, Row
from fastvideo_tools.demo.story import Recipe


def page(folder: Path, *, data: DemoData | None = None, student: float = 0.02, teacher: float = 0.04) -> str:
    """Of a teacher and a student with these energy distances."""
    for name in ("teacher", "student-4"):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "total_loss": 1.0}) + "\n")
        (folder / f"{name}.yaml").write_text("recipe: {}\n")
    family = FamilyDemo(lambda folder, words, seed: None, ClipSize(32, 48, 9, 8.0))
    first = MethodDemo((DemoRun("teacher", {}, {}),))
    run = DemoRun("student-4", {}, {}, calls=4)
    recipe = Recipe("fam", family, "method", MethodDemo((run,), "first", data=data), "first", first)
    right = Accuracy(1.0, 1.0, 1.0, 1.0)
    rows = (
        Row("teacher-4", "teacher", 4, 0.1, right, 0.2, teacher),
        Row("student-4", "student", 4, 0.1, right, 0.1, student),
    )
    write_page(folder, recipe, Results(rows, {"teacher": 60.0}), {})
    return html.unescape((folder / "demo.html").read_text())


def test_it_says_that_the_students_learned_from_clips_or_from_what_the_teacher_made(tmp_path: Path) -> None:
    assert "into a teacher, and the teacher distilled into students of few steps. All" in page(tmp_path / "clips")
    said = page(tmp_path / "made", data=DemoData("trajectories", ("--steps", "24"), prompts=16))
    assert "which then sampled 16 prompts (fastvideo-distill trajectories --steps 24); students" in said


@pytest.mark.parametrize(
    ("student", "teacher", "share"), [(0.02, 0.04, "50 %"), (-0.01, 0.04, "-"), (0.02, -0.01, "-")]
)
def test_a_share_of_a_distance_that_chance_put_below_0_is_none(
    tmp_path: Path, student: float, teacher: float, share: str
) -> None:
    said = page(tmp_path, student=student, teacher=teacher).partition("Student against teacher")[2]
    assert f">{share}</td></tr>" in said.partition("</table>")[0].replace("\n", "")
