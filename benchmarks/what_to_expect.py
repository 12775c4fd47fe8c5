"""Draws the plots of docs/what-to-expect.md, from runs of this program that it makes where they are not there yet.

    python benchmarks/what_to_expect.py --keep DIR [--images docs/images]

DIR holds the demo (`fastvideo-distill demo`), whose teacher the runs of provoked_runs.py start from; these runs; and the fast
demos of the other methods, as demo-METHOD.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import provoked_runs
from PIL import Image

from fastvideo_core.cli.main import main as distill
from fastvideo_data.video_files import read_frames
from fastvideo_tools.demo.clips import CONTENTS
from fastvideo_tools.demo.story import read_metrics
from fastvideo_tools.pages.curves import WIDTH, Points, curves, smoothed

RUNS = {
    "good-s0": "good",
    "high_rate": "high rate",
    "weak_critic": "weak critic",
    "wrong_shift": "shift 0.01",
    "high_guidance": "guidance 20",
}
OTHERS = ("kd", "consistency", "rcm")
HEIGHT, COLUMNS = 276, 2
"""Of a chart with two lines of names, and charts beside each other."""
LOSSES, STUDENT = 0.8, 0.6
"""How much curves are smoothed that have a point at every step, and at every fifth."""

Logs = Mapping[str, Sequence[Mapping[str, float]]]


def make(keep: Path) -> None:
    """Runs what is not there; SystemExit with the status of one that fails."""
    for method in ("dmd2", *OTHERS):
        out = keep / f"demo-{method}"
        if not (out / "demo.html").exists():
            _distill("demo", "--method", method, "--out", str(out), *(["--fast"] if method in OTHERS else []))
    provoked_runs.main(["--keep", str(keep), "--world", str(keep / "demo-dmd2")])  # whatever it thinks of the watch


def _distill(*arguments: str) -> None:
    if status := distill(arguments):
        sys.exit(status)


def points(lines: Sequence[Mapping[str, float]], name: str, smooth: float) -> Points:
    """Of a metric in a log: (step, value)."""
    return smoothed([(line["step"], float(line[name])) for line in lines if name in line], smooth)


def chart(logs: Logs, name: str, *, smooth: float = 0.0, log: bool = False, title: str = "") -> str:
    """One metric of several runs."""
    return curves(title or name, {run: points(lines, name, smooth) for run, lines in logs.items()}, log=log)


def captions(keep: Path) -> str:
    """The share of videos that show their caption at a run's validations; before its first step they are the start's."""
    start = [(0.0, right) for right in provoked_runs.captions(keep / provoked_runs.START).values()]
    series = {title: [*start, *provoked_runs.captions(keep / name).items()] for name, title in RUNS.items()}
    return curves("captions right", series)


def figure(charts: Sequence[str]) -> str:
    """Charts side by side as one SVG file."""
    rows = -(-len(charts) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows
    placed = []
    for number, one in enumerate(charts):
        x, y = WIDTH * (number % COLUMNS), HEIGHT * (number // COLUMNS)
        place = f'<svg x="{x}" y="{y}" height="{HEIGHT}" preserveAspectRatio="xMinYMin" '
        placed.append(one.replace("<svg ", place, 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" color="#1c2430"><rect width="{width}" height="{height}" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def figures(keep: Path) -> dict[str, str]:
    """The page's figures by name."""
    logs = {title: read_metrics(keep / name / "metrics.jsonl") for name, title in RUNS.items()}
    good = {name: read_metrics(keep / name / "metrics.jsonl") for name in provoked_runs.GOOD}
    other = {name: read_metrics(keep / f"demo-{name}" / "runs/student-4/metrics.jsonl") for name in OTHERS}
    teacher = {"": read_metrics(keep / "demo-dmd2/runs/teacher/metrics.jsonl")}
    losses = [chart(logs, name, smooth=LOSSES, log=True) for name in ("critic_loss", "grad_norm/critic")]
    losses += [chart(logs, name, smooth=STUDENT, log=True) for name in ("student_loss", "grad_norm/student")]
    samples = [chart(logs, f"student_x0/{name}", smooth=STUDENT) for name in ("std", "variation")]
    samples += [chart(logs, f"dmd/{name}", smooth=STUDENT, log=True) for name in ("score_distance", "normaliser")]
    samples += [chart(logs, f"critic_timestep/{number}", smooth=LOSSES) for number in (0, 9)]
    watch = ("drift", "mean", "spread", "variation", "seeds", "motion")
    others = [chart(teacher, "total_loss", title="finetune: total_loss")]
    for method, name in (
        ("kd", "total_loss"),
        ("consistency", "total_loss"),
        ("rcm", "consistency_loss"),
        ("rcm", "critic_loss"),
        ("rcm", "student_loss"),
    ):
        others.append(chart({"": other[method]}, name, title=f"{method}: {name}", log=True))
    return {
        "expect-losses": figure(losses),
        "expect-samples": figure(samples),
        "expect-watch": figure([*(chart(logs, f"quality/{name}") for name in watch), captions(keep)]),
        "expect-good": figure(
            [chart(good, name) for name in ("critic_loss", "student_loss", "student_x0/std", "quality/drift")]
        ),
        "expect-others": figure(others),
    }


def videos(keep: Path) -> Image.Image:
    """What the runs' last checkpoints make of eight captions, a run a row: the frame in the middle of each video."""
    (keep / "eight.json").write_text(json.dumps({"data": [{"caption": c.caption, "seed": 0} for c in CONTENTS[::6]]}))
    rows = []
    for name in RUNS:
        out = keep / f"videos-{name}"
        if not out.exists():
            _distill("sample", str(keep / name), "--prompts", str(keep / "eight.json"), "--out", str(out))
        clips = [read_frames(file) for file in sorted(out.glob("*.mp4"))]
        rows.append(np.concatenate([clip[len(clip) // 2] for clip in clips], axis=1))
    picture = Image.fromarray(np.concatenate(rows))
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", required=True, help="the runs' folder")
    parser.add_argument("--images", type=Path, default=Path(__file__).parents[1] / "docs/images")
    args = parser.parse_args(arguments)
    make(args.keep)
    for name, text in figures(args.keep).items():
        (args.images / f"{name}.svg").write_text(text, encoding="utf-8")
        print(args.images / f"{name}.svg")
    videos(args.keep).save(args.images / "expect-videos.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
