"""The page of `fastvideo-distill report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from fastvideo_core.config.document import dump_yaml
from fastvideo_core.errors import FastVideoError, foreign_file
from fastvideo_core.errors.shown import without_secrets
from fastvideo_tools.pages.clips import FALL_BACK, clip
from fastvideo_tools.pages.curves import curves
from fastvideo_tools.pages.html import folded, heading, page, paragraph, raw_table, table
from fastvideo_tools.report.read import RunFolder, Series, Validation

MOST_STEPS = 6
"""Validations side by side; of more, the first, the last and some evenly between."""

LARGER = "video, img.clip { width: auto; height: auto; max-width: 240px; max-height: 240px; image-rendering: auto; }"


def write_report(run: RunFolder) -> str:
    """The page as HTML that needs no other file."""
    body = [
        f"<style>{LARGER}</style>",
        paragraph(status(run)),
        *[paragraph(note, faint=True) for note in run.notes],
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
    return page(f"{run.path.resolve().name}: {recipe['method']} of {recipe['family']}", body, FALL_BACK)


def status(run: RunFolder) -> str:
    """Where the run stands, in a sentence."""
    if not run.last:
        return f"No step is logged yet, of {run.max_steps}."
    step = int(run.last["step"])
    text = f"Finished after {step} steps" if run.finished else f"Step {step} of {run.max_steps}, by its log"
    losses = [f"{name} {value:.4f}" for name, value in run.last.items() if _is_loss(name)]
    speed = run.last.get("seconds_per_step")
    parts = [text, *losses, *([f"{speed:.2f} s a step"] if speed is not None else [])]
    return ", ".join([*parts, *([f"{run.skipped_steps} steps skipped"] if run.skipped_steps else [])]) + "."


def _is_loss(name: str) -> bool:
    return name.endswith("loss")


GROUPS: tuple[tuple[str, Callable[[str], bool], float], ...] = (
    ("learning rate", lambda name: name.startswith("lr/"), 0.0),
    ("gradient norm", lambda name: name.startswith("grad_norm/"), 0.9),
    ("seconds a step", lambda name: name == "seconds_per_step", 0.5),
    ("samples a second", lambda name: name == "samples_per_second", 0.5),
    ("peak memory, GiB", lambda name: name == "peak_memory_bytes", 0.0),
)
"""Charts after those of the losses, in their order: title, which metrics, and how much they are smoothed."""


def charts(run: RunFolder) -> Iterator[str]:
    """The curves that every run has; each loss on axes of its own, as their scales differ."""
    losses = {name: points for name, points in run.series.items() if _is_loss(name)}
    for name, points in (losses or {"loss": []}).items():
        yield curves(name, {"": points}, smooth=0.9)
    for title, belongs, smooth in GROUPS:
        series = {_short(name): points for name, points in run.series.items() if belongs(name)}
        if title.endswith("GiB"):
            series = {name: [(x, y / 2**30) for x, y in points] for name, points in series.items()}
        yield curves(title, series, smooth=smooth)


def others(run: RunFolder) -> dict[str, Series]:
    """Metrics that no chart above shows."""
    shown = [_is_loss, *(belongs for _, belongs, _ in GROUPS)]
    return {name: points for name, points in run.series.items() if not any(belongs(name) for belongs in shown)}


def _others(run: RunFolder) -> Iterator[str]:
    for name, points in others(run).items():
        yield curves(name, {"": points})


def _short(name: str) -> str:
    return name.partition("/")[2] if name.startswith(("lr/", "grad_norm/")) else name


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
        yield raw_table([kind, *(f"step {step}" for step in steps)], rows)


def _clip(path: Path, label: str) -> str:
    try:
        with foreign_file(path, "video"):
            return clip(path, label)
    except FastVideoError:  # one damaged video does not keep the rest of the page from being seen
        return f'<span class="faint">{escape(path.name)} cannot be read</span>'


def _checkpoints(run: RunFolder) -> Iterator[str]:
    if not run.checkpoints:
        yield paragraph("None yet.")
        return
    rows = [(one.name, str(one.step), f"{one.size / 2**20:,.1f} MiB") for one in run.checkpoints]
    yield table(("checkpoint", "step", "size"), rows)
