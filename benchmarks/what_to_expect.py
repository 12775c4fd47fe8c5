"""Draws the plots of docs/what-to-expect.md, from runs of this program that it makes where they are not there yet.

    python benchmarks/what_to_expect.py --keep DIR [--images docs/images]

The runs are those of provoked_runs.py, in DIR, and the fast demos of the other methods, in DIR/demo-METHOD
(`fastvideo-distill demo --fast --method METHOD`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import provoked_runs

from fastvideo_core.cli.main import main as distill
from fastvideo_tools.demo.story import read_metrics
from fastvideo_tools.pages.curves import WIDTH, Points, curves, smoothed

RUNS = {
    "good-s0": "good",
    "high_rate": "rate x 33",
    "weak_critic": "weak critic",
    "wrong_shift": "shift 20",
    "high_guidance": "guidance 10",
}
OTHERS = ("kd", "consistency", "rcm")
HEIGHT, COLUMNS = 256, 2
LOSSES, STUDENT = 0.8, 0.6
"""How much curves are smoothed that have a point at every step, and at every fifth."""

Logs = Mapping[str, Sequence[Mapping[str, float]]]


def make(keep: Path) -> None:
    """Runs what is not there."""
    if status := provoked_runs.main(["--keep", str(keep)]):
        sys.exit(status)
    for method in OTHERS:
        out = keep / f"demo-{method}"
        if not (out / "demo.html").exists() and (
            status := distill(["demo", "--fast", "--method", method, "--out", str(out)])
        ):
            sys.exit(status)


def points(lines: Sequence[Mapping[str, float]], name: str, smooth: float) -> Points:
    """Of a metric in a log: (step, value)."""
    return smoothed([(line["step"], float(line[name])) for line in lines if name in line], smooth)


def chart(logs: Logs, name: str, *, smooth: float = 0.0, log: bool = False, title: str = "") -> str:
    """One metric of several runs."""
    return curves(title or name, {run: points(lines, name, smooth) for run, lines in logs.items()}, log=log)


def figure(charts: Sequence[str]) -> str:
    """Charts side by side as one SVG file."""
    rows = -(-len(charts) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows
    placed = [
        one.replace("<svg ", f'<svg x="{WIDTH * (n % COLUMNS)}" y="{HEIGHT * (n // COLUMNS)}" height="{HEIGHT}" ', 1)
        for n, one in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" color="#1c2430"><rect width="{width}" height="{height}" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def figures(keep: Path) -> dict[str, str]:
    """The page's figures by name."""
    logs = {title: read_metrics(keep / name / "metrics.jsonl") for name, title in RUNS.items()}
    good = {name: read_metrics(keep / name / "metrics.jsonl") for name in provoked_runs.GOOD}
    other = {name: read_metrics(keep / f"demo-{name}" / "runs/student-4/metrics.jsonl") for name in OTHERS}
    teacher = {"teacher": read_metrics(keep / "demo-kd/runs/teacher/metrics.jsonl")}
    return {
        "expect-losses": figure(
            [
                chart(logs, "critic_loss", smooth=LOSSES, log=True),
                chart(logs, "grad_norm/critic", smooth=LOSSES, log=True),
                chart(logs, "student_loss", smooth=STUDENT, log=True),
                chart(logs, "grad_norm/student", smooth=STUDENT, log=True),
            ]
        ),
        "expect-samples": figure(
            [
                chart(logs, "student_x0/std", smooth=STUDENT),
                chart(logs, "student_x0/variation", smooth=STUDENT),
                chart(logs, "dmd/score_distance", smooth=STUDENT, log=True),
                chart(logs, "dmd/normaliser", smooth=STUDENT, log=True),
            ]
        ),
        "expect-watch": figure(
            [chart(logs, f"quality/{name}") for name in ("drift", "mean", "spread", "variation", "seeds", "motion")]
        ),
        "expect-good": figure(
            [
                chart(good, "critic_loss"),
                chart(good, "student_loss"),
                chart(good, "quality/drift"),
                chart(good, "student_x0/std"),
            ]
        ),
        "expect-others": figure(
            [
                chart(teacher, "total_loss", title="finetune: total_loss"),
                *(
                    chart({"": other[name]}, "total_loss", title=f"{name}: total_loss", log=True)
                    for name in ("kd", "consistency")
                ),
                *(
                    chart({"": other["rcm"]}, name, title=f"rcm: {name}", log=True)
                    for name in ("consistency_loss", "critic_loss", "student_loss")
                ),
            ]
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", required=True, help="the runs' folder")
    parser.add_argument("--images", type=Path, default=Path(__file__).parents[1] / "docs/images")
    args = parser.parse_args(arguments)
    make(args.keep)
    for name, text in figures(args.keep).items():
        (args.images / f"{name}.svg").write_text(text, encoding="utf-8")
        print(args.images / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
