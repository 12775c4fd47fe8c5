"""index.html of an evaluation: which model is the best and why, all values, curves over the checkpoints, and the videos."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastvideo_core.errors import FastVideoError, foreign_file
from fastvideo_data.video_files import probe, read_frames, write_video
from fastvideo_evaluate.command.videos import Videos
from fastvideo_tools.pages.clips import FALL_BACK, clip
from fastvideo_tools.pages.curves import Marks, curves, key
from fastvideo_tools.pages.html import heading, page, paragraph, raw_table

MOST_PROMPTS, MOST_MODELS = 8, 8
"""Rows and columns of videos; of more, the first, the last and some evenly between, and the best model."""
MOST_PIXELS = 256
"""Height and width of a video on the page; larger ones are made smaller."""
BEST = "#2a9d5c"
RIVAL = 0.1
"""The share of the resamples from which on a model counts as a rival of the best."""

STYLE = """
video, img.clip { width: auto; height: auto; min-width: 96px; max-width: 240px; max-height: 240px; }
td small { color: var(--faint); display: block; white-space: nowrap; font-weight: 400; } td, th { white-space: nowrap; }
td:first-child, td:first-child small, th { white-space: normal; min-width: 9rem; }
"""

Results = Mapping[str, Any]
"""The content of results.json."""


def write_page(results: Results, videos: Videos) -> str:
    """The page as HTML that needs no other file."""
    models, prompts, best = results["models"], results["prompts"], results["best"]
    students = [model for model in models if model["name"] != results["teacher"]]
    marks = _marks(students, best)
    body = [
        f"<style>{STYLE}</style>",
        paragraph(_compared(results, students)),
        *_best(results),
        heading("All models"),
        raw_table(
            *_table(results), [number for number, one in enumerate(models) if best and one["name"] == best["name"]]
        ),
        paragraph(
            f"Below each value its interval, and its drift: how far it is above {_whose(results)}. {results['intervals']}.",
            faint=True,
        ),
        *[paragraph(note, faint=True) for note in results["notes"]],
    ]
    charts = list(_charts(results, students, marks))
    if charts:
        body += [heading("Over the checkpoints"), key(marks), f'<div class="curves">{"".join(charts)}</div>']
    body += [heading("Videos"), *_videos(results, videos, _chosen(range(len(prompts)), MOST_PROMPTS))]
    return page("Evaluation", body, FALL_BACK)


def title(model: Mapping[str, Any]) -> str:
    """What a model is called on the page."""
    return model["curve"] if model["step"] is None else f"{model['curve']}, step {model['step']}"


def _compared(results: Results, students: Sequence[Mapping[str, Any]]) -> str:
    teacher = next((model for model in results["models"] if model["name"] == results["teacher"]), None)
    count, seeds = len(results["prompts"]), results["seeds"]
    said = f"{len(students)} model{'s' if len(students) > 1 else ''}, {count} prompt{'s' if count > 1 else ''}, "
    said += f"{seeds} seed{'s' if seeds > 1 else ''} each, the same for all. "
    if teacher is None:
        return said + "No teacher."
    if results["clips"]:
        return said + f"They are compared with as many real clips of {teacher['source']}."
    return said + f"The teacher is {teacher['source']}, {_sampled(teacher)}."


def _whose(results: Results) -> str:
    return "that of the clips" if results["clips"] else "the teacher's"


def _sampled(model: Mapping[str, Any]) -> str:
    how = model["sampling"]
    if "clips" in how:
        return "real clips"
    if how.get("timesteps"):
        count = len(how["timesteps"])
        steps = f"{count} step{'s' if count > 1 else ''} at {', '.join(f'{t:g}' for t in how['timesteps'])} ({how['sampler']})"
    else:
        steps = f"{how['steps']} steps"
    return f"{steps}, guidance {how['guidance_scale']:g}"


def _best(results: Results) -> Iterator[str]:
    if results["best"] is None:
        yield paragraph("No metric puts the models in order, so that none is called the best.")
        return
    model = next(one for one in results["models"] if one["name"] == results["best"]["name"])
    by = results["best"]["by"]
    least = f"a mean place of {model['mean_place']:.2f}" if by is None else f"the lowest {by}"
    yield f"<p><b>Best: {escape(title(model))}</b> ({escape(_sampled(model))}), with {least}; "
    yield f"in {model['best_in']:.0%} of the resamples of the prompts it is the best{_rivals(results, model)}.</p>"
    yield paragraph(f"The rule: {results['best']['rule']}.", faint=True)


def _rivals(results: Results, best: Mapping[str, Any]) -> str:
    """The models that these prompts hardly tell from the best."""
    others = [one for one in results["models"] if one.get("best_in", 0) >= RIVAL and one["name"] != best["name"]]
    told = [f"{escape(title(one))} in {one['best_in']:.0%}" for one in others]
    return f", {', '.join(told)}: more prompts or seeds would tell them apart" if told else ""


def _table(results: Results) -> tuple[list[str], list[list[str]]]:
    by = results["best"] and results["best"]["by"]
    metrics = sorted(results["metrics"], key=lambda name: name != by)  # what decides comes first
    rows = []
    for model in results["models"]:
        place = model.get("mean_place")
        first = f"{escape(title(model))}<small>{escape(_sampled(model))}</small>"
        cells = ["" if place is None else f"{model['best_in']:.0%}<small>mean place {place:.2f}</small>"]
        rows.append([first, *cells, *(_cell(model["metrics"].get(name)) for name in metrics)])
    return ["model", "best in", *metrics], rows


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    text = f"{value['value']:.4g}<small>{value['low']:.4g} to {value['high']:.4g}</small>"
    if (drift := value.get("drift")) is not None:
        text += f"<small>drift {drift['value']:+.3g}</small>"
    return text


def _marks(students: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None) -> list[Marks]:
    steps = [
        model["step"] for model in students if best and model["name"] == best["name"] and model["step"] is not None
    ]
    return [Marks("the best model's step", steps, BEST, tall=True)] if steps else []


def _charts(results: Results, students: Sequence[Mapping[str, Any]], marks: Sequence[Marks]) -> Iterator[str]:
    """A chart for each metric, where a run has two checkpoints at least: the values, and the teacher's as a level line."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for model in students:
        if model["step"] is not None:
            runs.setdefault(model["curve"], []).append(model)
    if all(len(models) < 2 for models in runs.values()):
        return
    steps = sorted({model["step"] for models in runs.values() for model in models})
    teacher = next((model for model in results["models"] if model["name"] == results["teacher"]), None)
    placed = {
        curve: [(model["step"], model["mean_place"]) for model in models if "mean_place" in model]
        for curve, models in runs.items()
    }
    if any(placed.values()):
        yield curves("mean place", placed, marks=marks)
    for name, metric in results["metrics"].items():
        series = {
            curve: [(model["step"], model["metrics"][name]["value"]) for model in models if name in model["metrics"]]
            for curve, models in runs.items()
        }
        if teacher is not None and name in teacher["metrics"]:
            level = teacher["metrics"][name]["value"]
            series["clips" if results["clips"] else "teacher"] = [(steps[0], level), (steps[-1], level)]
        yield curves(f"{name} ({metric['unit']})" if metric["unit"] else name, series, marks=marks)


def _chosen(numbers: Sequence[int], most: int, always: Sequence[int] = ()) -> list[int]:
    """The first, the last and some evenly between, and those that are shown always."""
    if len(numbers) <= most:
        return list(numbers)
    some = {numbers[round(number * (len(numbers) - 1) / (most - 1))] for number in range(most)}
    return sorted(some | set(always))


def _videos(results: Results, videos: Videos, prompts: Sequence[int]) -> Iterator[str]:
    models, best = results["models"], results["best"]
    always = [number for number, one in enumerate(models) if best and one["name"] == best["name"]]
    shown = [models[number] for number in _chosen(range(len(models)), MOST_MODELS, always)]
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for number in prompts:
            caption = results["prompts"][number]["caption"]
            cells = [
                _clip(videos.path(model["name"], number, 0), f"{title(model)}: {caption}", Path(name))
                for model in shown
            ]
            rows.append([escape(caption), *cells])
    yield raw_table(["first seed of", *map(title, shown)], rows)
    if len(prompts) < len(results["prompts"]) or len(shown) < len(models):
        yield paragraph("Some of the prompts and models; all videos lie in videos/.", faint=True)


def _clip(path: Path, label: str, scratch: Path) -> str:
    try:
        with foreign_file(path, "video"):
            return clip(_small(path, scratch), label)
    except FastVideoError:  # one damaged video does not keep the rest of the page from being seen
        return f'<span class="faint">{escape(path.name)} cannot be read</span>'


def _small(path: Path, scratch: Path) -> Path:
    """The video where it fits the page, else a smaller copy."""
    info = probe(path)
    scale = MOST_PIXELS / max(info.height, info.width)
    if scale >= 1:
        return path
    height, width = (2 * max(1, round(length * scale / 2)) for length in (info.height, info.width))
    write_video(scratch / "small.mp4", read_frames(path, height=height, width=width), info.fps)
    return scratch / "small.mp4"
