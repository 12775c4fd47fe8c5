"""The page of `fastvideo-distill report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from fastvideo_core.config.document import dump_yaml
from fastvideo_core.errors import FastVideoError, foreign_file
from fastvideo_core.errors.shown import without_secrets
from fastvideo_tools.pages.clips import FALL_BACK, clip
from fastvideo_tools.pages.curves import Marks, curves, key
from fastvideo_tools.pages.html import folded, heading, page, paragraph, raw_table, table
from fastvideo_tools.report.read import REFERENCE, REFERENCE_WARNINGS, WARNINGS, WATCH, RunFolder, Series, Validation

MOST_STEPS = 6
"""Validations side by side; of more, the first, the last and some evenly between."""

RELOAD_SECONDS = 10

RELOAD = f"""
const folds = [...document.querySelectorAll('details')], place = 'open ' + location.pathname;
for (const number of JSON.parse(sessionStorage.getItem(place) || '[]')) if (folds[number]) folds[number].open = true;
setInterval(() => {{
  if (document.hidden) return;
  sessionStorage.setItem(place, JSON.stringify(folds.flatMap((fold, number) => fold.open ? [number] : [])));
  location.reload();
}}, {1000 * RELOAD_SECONDS});
"""
"""For the end of a page of a live run: what was unfolded stays so, and a page that nobody sees waits."""

LARGER = """
video, img.clip { width: auto; height: auto; max-width: 240px; max-height: 240px; image-rendering: auto; }
td:first-child { min-width: 10rem; }
"""


def write_report(run: RunFolder, *, live: bool = False) -> str:
    """The page as HTML that needs no other file; where the run is `live` the page reloads itself."""
    body = [
        f"<style>{LARGER}</style>",
        paragraph(status(run)),
        *[paragraph(note, faint=True) for note in run.notes],
        *([paragraph(f"This page loads itself anew every {RELOAD_SECONDS} seconds.", faint=True)] if live else []),
        key(marks(run)),
        *_watch(run),
        heading("Training"),
        f'<div class="curves">{"".join(charts(run))}</div>',
        *_validation(run.validations),
        heading("Checkpoints"),
        *_checkpoints(run),
        heading("Configuration and environment"),
        folded("run.yaml", dump_yaml(without_secrets(run.config))),
        *([folded("environment", json.dumps(run.environment, indent=2))] if run.environment else []),
        heading("Other metrics"),
        f'<details><summary>{len(others(run))} curves</summary><div class="curves">{"".join(_others(run))}</div></details>',
    ]
    recipe = run.config["recipe"]
    return page(f"{run.path.resolve().name}: {recipe['method']} of {recipe['family']}", body, FALL_BACK + RELOAD * live)


def status(run: RunFolder) -> str:
    """Where the run stands, in a sentence."""
    if not run.last:
        return f"No step is logged yet, of {run.max_steps}."
    step = int(run.last["step"])
    text = f"Finished after {step} steps" if run.finished else f"Step {step} of {run.max_steps}, by its log"
    losses = [f"{name} {value:.4f}" for name, value in run.last.items() if _is_loss(name)]
    speed = run.last.get("seconds_per_step")
    parts = [text, *losses, *([f"{speed:.2f} s a step"] if speed is not None else [])]
    skipped = round(sum(count for _, count in run.skipped))
    parts += [f"{skipped} {'steps' if skipped > 1 else 'step'} skipped"] if skipped else []
    parts += [f"quality watch warned at step {run.alarms[0]}"] if run.alarms else []
    parts += ["quality watch warned of the teacher's samples"] if run.wrong_reference else []
    return ", ".join(parts) + "."


def _is_loss(name: str) -> bool:
    return name.endswith("loss")


def marks(run: RunFolder) -> list[Marks]:
    """What happened when, for the time axis of every chart of a run."""
    return [
        Marks("skipped steps", [step for step, _ in run.skipped], "#c0392b", tall=True),
        Marks("warnings of the quality watch", run.alarms, "#e08a00", tall=True),
        Marks("validations", sorted({step for one in run.validations for step in one.videos}), "#2a9d5c"),
        Marks("checkpoints", [one.step for one in run.checkpoints], "#5a6675"),
    ]


GROUPS: tuple[tuple[str, Callable[[str], bool], float], ...] = (
    ("learning rate", lambda name: name.startswith("lr/"), 0.0),
    ("gradient norm", lambda name: name.startswith("grad_norm/"), 0.9),
    ("seconds a step", lambda name: name == "seconds_per_step", 0.5),
    ("samples a second", lambda name: name == "samples_per_second", 0.5),
    ("peak memory, GiB", lambda name: name == "peak_memory_bytes", 0.0),
)
"""Charts after those of the losses, in their order: title, which metrics, and how much they are smoothed."""


def charts(run: RunFolder) -> Iterator[str]:
    """The curves that every run has; each loss on axes of its own, as their scales differ, and each of what else differs much."""
    losses = {name: points for name, points in run.series.items() if _is_loss(name)}
    at = marks(run)
    for name, points in (losses or {"loss": []}).items():
        yield curves(name, {"": points}, smooth=0.9, marks=at)
    for title, belongs, smooth in GROUPS:
        series = {_short(name): points for name, points in run.series.items() if belongs(name)}
        if title.endswith("GiB"):
            series = {name: [(x, y / 2**30) for x, y in points] for name, points in series.items()}
        if comparable(series.values()):
            yield curves(title, series, smooth=smooth, marks=at)
        else:
            for name, points in series.items():
                yield curves(f"{title}, {name}", {"": points}, smooth=smooth, marks=at)


def comparable(series: Iterable[Series], most: float = 10.0) -> bool:
    """Whether the largest values of curves differ by so little that one axis shows them all."""
    heights = [max(abs(y) for _, y in points) for points in series if points]
    return not heights or max(heights) <= most * min(heights)


def others(run: RunFolder) -> dict[str, Series]:
    """Metrics that no chart above shows."""
    shown = [_is_loss, lambda name: name.startswith(WATCH), *(belongs for _, belongs, _ in GROUPS)]
    return {name: points for name, points in run.series.items() if not any(belongs(name) for belongs in shown)}


def _others(run: RunFolder) -> Iterator[str]:
    for name, points in others(run).items():
        yield curves(name, {"": points}, marks=marks(run))


def _watch(run: RunFolder) -> Iterator[str]:
    """What the quality watch saw; nothing for a run without it."""
    series = {name: points for name, points in run.series.items() if name.startswith(WATCH)}
    if not series:
        return
    yield heading("Quality watch")
    steps = ", ".join(map(str, run.alarms[:MOST_STEPS])) + (", ..." if len(run.alarms) > MOST_STEPS else "")
    yield paragraph(f"Warned at step {steps}." if run.alarms else "It gave no warning of the student.")
    told = [name for name in series if name.startswith(REFERENCE) and name != REFERENCE_WARNINGS]
    if once := {name.removeprefix(REFERENCE): series[name] for name in told}:
        values = ", ".join(f"{name} {points[-1][1]:+.3f}" for name, points in once.items())
        yield paragraph(f"What the teacher itself makes, beside the data: {values}.", faint=not run.wrong_reference)
    if run.wrong_reference:
        yield paragraph(f"It warned of the teacher's own samples: {', '.join(run.wrong_reference)}.")
    names = [name for name in series if not name.startswith(REFERENCE) and name != WARNINGS]
    names.sort(key=lambda name: name != f"{WATCH}drift")  # the one number that sums up the others comes first
    drawn = (curves(name.removeprefix(WATCH), {"": series[name]}, marks=marks(run)) for name in names)
    yield f'<div class="curves">{"".join(drawn)}</div>'


def _short(name: str) -> str:
    return name.partition("/")[2] if name.startswith(("lr/", "grad_norm/")) else ""


def chosen(steps: Sequence[int], most: int = MOST_STEPS) -> list[int]:
    """The first, the last and some evenly between."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def _validation(validations: Sequence[Validation]) -> Iterator[str]:
    if not validations:
        return
    yield heading("Validation")
    for kind in dict.fromkeys(validation.kind for validation in validations):
        ours = [validation for validation in validations if validation.kind == kind]
        steps = chosen(sorted({step for validation in ours for step in validation.videos}))
        rows = []
        for validation in ours:
            cells = [
                _clip(validation.videos[step], f"{validation.caption}, step {step}")
                if step in validation.videos
                else ""
                for step in steps
            ]
            rows.append([escape(validation.caption), *cells])
        yield raw_table([kind, *(f"step\u00a0{step}" for step in steps)], rows)


def _clip(path: Path, label: str) -> str:
    try:
        with foreign_file(path, "video"):
            there = path.stat()
            return _encoded(path, label, there.st_mtime_ns, there.st_size)
    except FastVideoError:  # one damaged video does not keep the rest of the page from being seen
        return f'<span class="faint">{escape(path.name)} cannot be read</span>'


@lru_cache(maxsize=128)
def _encoded(path: Path, label: str, changed_ns: int, size: int) -> str:
    """`clip`, made once for a file as long as it is the same: a page that follows a run shows most videos again."""
    return clip(path, label)


def _checkpoints(run: RunFolder) -> Iterator[str]:
    if not run.checkpoints:
        yield paragraph("None yet.")
        return
    rows = [(one.name, str(one.step), f"{one.size / 2**20:,.1f} MiB") for one in run.checkpoints]
    yield table(("checkpoint", "step", "size"), rows)
