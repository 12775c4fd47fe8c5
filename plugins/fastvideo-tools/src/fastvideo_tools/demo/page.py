"""The demo's page: videos side by side, the table, the students' advantage, loss curves and the configurations used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fastvideo_tools.demo.clips import Content
from fastvideo_tools.demo.results import HEADINGS, Results, Row, cells, video_path
from fastvideo_tools.demo.story import TEACHER, Recipe, configs, read_metrics
from fastvideo_tools.pages.clips import FALL_BACK, clip
from fastvideo_tools.pages.curves import Points, curves
from fastvideo_tools.pages.html import folded, heading, page, paragraph, raw_table, table


def write_page(out: Path, recipe: Recipe, results: Results, prompts: Mapping[int, Content]) -> None:
    """Writes demo.html into the demo's folder; it needs no other file.

    Args:
        prompts: whose videos are shown, by their number.
    """
    students = {run.name for run in recipe.students}
    marked = [number for number, row in enumerate(results.rows) if row.name in students]
    total = sum(seconds for name, seconds in results.spent.items() if not name.startswith(("sample-", "student-")))
    body = [
        paragraph(
            f"Family {recipe.family}, method {recipe.method}: a network of random weights was trained on captioned clips into a "
            f"teacher{_distilled(recipe)}. All of it took {total / 60:.1f} minutes here."
        ),
        heading("The same prompts and seeds"),
        _videos(out, results.rows, prompts),
        heading("How good they are"),
        table(HEADINGS, map(cells, results.rows), marked),
        paragraph(
            "caption: share of videos whose pixels show the colour, shape and direction that were asked for. Wasserstein: "
            "sliced, to all clips; energy: energy distance to the clips of the same caption. Both are 0 for equal "
            "distributions; what held-out clips get is what chance leaves.",
            faint=True,
        ),
        *_advantages(recipe, results),
        heading("Training"),
        f'<div class="curves">{"".join(_losses(out, recipe))}</div>',
        heading("Configurations"),
        *(folded(name, text) for name, text in configs(out, recipe).items()),
        heading("Where the time went"),
        table(("part", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in results.spent.items()]),
    ]
    document = page(f"fastvideo-distill demo: {recipe.family}, {recipe.method}", body, FALL_BACK)
    (out / "demo.html").write_text(document, encoding="utf-8")


def _distilled(recipe: Recipe) -> str:
    """How the students came to be, as the end of a sentence."""
    if not recipe.students:
        return ""
    data = recipe.method_demo.data
    if data is None:
        return ", and the teacher distilled into students of few steps"
    return (
        f", which then sampled {data.prompts} prompts (fastvideo-distill {data.command} {' '.join(data.options)}); students of "
        "few steps were trained on what it stored of that alone"
    )


def _videos(out: Path, rows: Sequence[Row], prompts: Mapping[int, Content]) -> str:
    lines = []
    for row in rows:
        videos = (clip(video_path(out, row, n), f"{row.title}: {one.caption}") for n, one in prompts.items())
        lines.append([escape(row.title), *videos])
    return raw_table(["", *(one.caption for one in prompts.values())], lines)


def _advantages(recipe: Recipe, results: Results) -> list[str]:
    """What each student is better by than the teacher in as many steps."""
    lines = []
    for run in recipe.students:
        student = results.row(run.name)
        for row in results.rows:
            if row.name in (f"{TEACHER}-{run.calls}", f"{TEACHER}-{run.calls}-guided"):
                lines.append((f"{student.title}, against {row.title}", *_better(student, row)))
    if not lines:
        return []
    names = ("", "caption", "colour", "shape", "direction", "Wasserstein", "energy")
    note = "Points of accuracy gained, and distances as a share of the teacher's (- where either is not above 0, by chance)."
    return [heading("Student against teacher in as many steps"), table(names, lines), paragraph(note, faint=True)]


def _better(student: Row, teacher: Row) -> list[str]:
    gains = [
        100 * (getattr(student.accuracy, name) - getattr(teacher.accuracy, name))
        for name in ("caption", "colour", "shape", "direction")
    ]
    distances = [(student.wasserstein, teacher.wasserstein), (student.energy, teacher.energy)]
    shares = [f"{100 * ours / its:.0f} %" if min(ours, its) > 0 else "-" for ours, its in distances]
    return [*(f"{gain:+.0f}" for gain in gains), *shares]


def _losses(out: Path, recipe: Recipe) -> list[str]:
    charts = []
    for run in recipe.runs:
        lines = read_metrics(out / "runs" / run.name / "metrics.jsonl")
        names = dict.fromkeys(name for line in lines for name in line if name.endswith("loss"))
        series: dict[str, Points] = {
            name: [(line["step"], float(line[name])) for line in lines if name in line] for name in names
        }
        charts.append(curves(run.name, series, smooth=0.8))
    return charts
