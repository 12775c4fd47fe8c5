"""What the videos are worth: every metric of every model with its interval, and which model is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.preprocessing.progress import progress
from fastvideo_evaluate.command.clips import Clips
from fastvideo_evaluate.command.models import Candidate
from fastvideo_evaluate.command.sampling import Shared
from fastvideo_evaluate.command.videos import Videos
from fastvideo_evaluate.metrics.contract import (
    Floats,
    Metric,
    PairMetric,
    PromptMetric,
    PromptSetMetric,
    Sample,
    SetMetric,
    VideoMetric,
    penalty,
)

RESAMPLES, SEED, LEVEL = 200, 0, 0.95
INTERVALS = (
    f"{LEVEL:.0%} intervals: {RESAMPLES} bootstrap resamples of the prompts (seed {SEED}; all seeds of a prompt stay together, "
    "and every model and the teacher get the same prompts), shifted so that their mean is the value itself"
)
DECIDING = ("latent_prompt_energy", "frame_prompt_energy")
"""What decides which model is the best, the first of these that is measured of all: the only built-in metrics that are 0 for no
model but one that makes of every prompt what its teacher does. Latents come first, as they hold all that the frames show."""
RULE = (
    "the best has the lowest {}: the distance between its videos and {} of the same prompt; "
    "of two with the same value the earlier one. The other metrics say in what a model differs"
)
RULE_OF_PLACES = (
    f"without {' and '.join(DECIDING)}, for every metric the models are put in order (by their distance from the teacher's value "
    "where that is the aim, else by the value); the best has the lowest mean place over all metrics, and of two with the same "
    "mean place the earlier one"
)

Spread = Callable[[Sequence[int]], float]
"""The value of a metric on some prompts, by their numbers, of which there may be several of one."""


@dataclass(frozen=True)
class Value:
    """A metric of a model, with its interval; `drift` is what it is above the teacher's.

    `videos` are the values of each prompt's seeds, or of each prompt, where these have a value of their own.
    """

    mean: float
    low: float
    high: float
    drift: tuple[float, float, float] | None = None
    videos: tuple[tuple[float, ...], ...] = ()
    resampled: Floats = field(default_factory=lambda: np.zeros(0), compare=False)


@dataclass(frozen=True)
class Evaluation:
    """All values by model and metric; each model's mean place, and the share of resamples in which it is the best.

    `by` is the metric that decides which is the best; None where the mean place does.
    """

    metrics: Mapping[str, Metric]
    values: Mapping[str, Mapping[str, Value]]
    places: Mapping[str, float]
    wins: Mapping[str, float]
    best: str | None
    by: str | None
    notes: tuple[str, ...]


def usable(
    metrics: Mapping[str, Metric],
    asked: Sequence[str] | None,
    teacher: Candidate | Clips | None,
    shared: Shared,
    *,
    keeps_pairs: bool,
) -> tuple[dict[str, Metric], list[str]]:
    """The metrics that can be measured here, and why others are left out.

    Args:
        asked: the names on the command line; None where it names none.
        keeps_pairs: whether all students were to make the teacher's video of the same noise.

    Raises:
        ConfigError: one that was asked for cannot be measured.
    """
    kept, notes, problems = {}, [], []
    for name, metric in metrics.items():
        found = fix = ""
        if isinstance(metric, (PairMetric, SetMetric, PromptSetMetric)) and teacher is None:
            found, fix = (
                "needs a teacher, and no run names one",
                "name one with --against, or clips with --against-clips",
            )
        elif isinstance(metric, PairMetric) and isinstance(teacher, Clips):
            found, fix = "compares videos of the same noise, and clips have none", "name a teacher with --against"
        elif metric.reads == "latents" and isinstance(teacher, Clips):
            found, fix = "reads latents, and clips have none", "name a teacher with --against"
        elif isinstance(metric, PairMetric) and asked is None and not keeps_pairs:
            found = "compares pairs, and a method here does not teach the teacher's video of the same noise"
            fix = "name it in --metrics to have it nevertheless"
        elif isinstance(metric, (PromptMetric, SetMetric, PromptSetMetric)) and shared.seeds < 2:
            found, fix = "needs two seeds of a prompt", "add --seeds 2 or more"
        elif isinstance(metric, SetMetric) and len(shared.prompts) < 2:
            found, fix = "needs two prompts", "add one"
        if not found:
            kept[name] = metric
        elif asked is None:
            notes.append(f"left out: {name} {found}; {fix}")
        else:
            problems.append(Problem(f"{name} {found}", "--metrics", fix=fix))
    if problems:
        raise ConfigError(problems)
    return kept, notes


def measure(
    candidates: Sequence[Candidate],
    teacher: Candidate | Clips | None,
    shared: Shared,
    videos: Videos,
    metrics: Mapping[str, Metric],
    notes: Sequence[str] = (),
) -> Evaluation:
    """Measures all videos; the same videos give the same values, to the bit.

    Raises:
        UserError: a video is damaged.
    """
    told = list(notes)
    everyone: list[Candidate | Clips] = [*([teacher] if teacher else []), *candidates]
    draws = np.random.default_rng(SEED).integers(len(shared.prompts), size=(RESAMPLES, len(shared.prompts)))
    of_teacher: _Measured | None = None
    values: dict[str, dict[str, Value]] = {}
    for one in progress(everyone, "model"):
        measured = _Measured(one, teacher, shared, videos, metrics)
        of_teacher = measured if one is teacher else of_teacher
        values[one.name] = {}
        for name, metric in metrics.items():
            spread = measured.spread(name, metric, of_teacher)
            if spread is None:
                continue
            values[one.name][name] = _value(spread, draws, measured.single.get(name, ()))
        told += measured.notes
        if broken := [name for name, value in values[one.name].items() if not np.isfinite(value.mean)]:
            told.append(f"no number: {', '.join(broken)} of {one.name}, which counts as the worst")
    if teacher is not None:
        for one in candidates:
            values[one.name] = {
                name: _with_drift(value, values[teacher.name].get(name)) for name, value in values[one.name].items()
            }
    names = [one.name for one in candidates]
    mean = _mean_places(names, metrics, values, teacher)
    by = next((name for name in DECIDING if all(name in values[one] for one in names)), None)
    decides = mean if by is None else np.array([[values[one][by].mean, *values[one][by].resampled] for one in names])
    if mean is None or decides is None:
        return Evaluation(metrics, values, {}, {}, None, None, tuple(dict.fromkeys(told)))
    decides = np.where(np.isnan(decides), np.inf, decides)
    first = decides.argmin(axis=0)
    wins = {name: float((first[1:] == number).mean()) for number, name in enumerate(names)}
    places = dict(zip(names, mean[:, 0].tolist(), strict=True))
    return Evaluation(
        metrics,
        values,
        places,
        wins,
        names[first[0]] if np.isfinite(decides[:, 0]).any() else None,
        by,
        tuple(dict.fromkeys(told)),
    )


class _Measured:
    """A model's videos in numbers: single values by prompt, and points of those metrics that compare sets."""

    def __init__(
        self,
        one: Candidate | Clips,
        teacher: Candidate | Clips | None,
        shared: Shared,
        videos: Videos,
        metrics: Mapping[str, Metric],
    ) -> None:
        single: dict[str, list[tuple[float, ...]]] = {}
        points: dict[str, list[list[Floats]]] = {}
        self.notes: list[str] = []
        pairs = any(isinstance(metric, PairMetric) for metric in metrics.values()) and one is not teacher
        for number, prompt in enumerate(shared.prompts):
            made = [videos.sample(one.name, number, seed, prompt.caption) for seed in range(shared.seeds)]
            beside: list[Sample] = []
            if pairs and teacher is not None:
                beside = [videos.sample(teacher.name, number, seed, prompt.caption) for seed in range(shared.seeds)]
            for name, metric in metrics.items():
                if metric.reads == "latents" and any(video.latents is None for video in made):
                    self.notes.append(f"left out: {name} reads latents, which the sampler of {one.name} does not give")
                elif isinstance(metric, (SetMetric, PromptSetMetric)):
                    points.setdefault(name, []).append([metric.features(video) for video in made])
                elif isinstance(metric, PromptMetric):
                    single.setdefault(name, []).append((float(metric.measure(made)),))
                elif isinstance(metric, VideoMetric):
                    single.setdefault(name, []).append(tuple(map(float, metric.measure_all(made))))
                elif isinstance(metric, PairMetric) and beside:
                    both = zip(made, beside, strict=True)
                    single.setdefault(name, []).append(tuple(float(metric.measure(*two)) for two in both))
        self.single = {name: tuple(found) for name, found in single.items()}
        self._points = {name: np.stack([np.stack(of_prompt) for of_prompt in found]) for name, found in points.items()}

    def spread(self, name: str, metric: Metric, teacher: _Measured | None) -> Spread | None:
        """The metric as a function of the prompts; None where this model has no value of it.

        Sets are compared without noise in common, which would make videos alike that are of one distribution at best: the videos
        of each seed with the teacher's of all other seeds, in the mean over the seeds. The teacher's value is what chance leaves.
        """
        if name in self.single:
            means = np.array([np.mean(values) for values in self.single[name]])
            return lambda prompts: float(means[list(prompts)].mean())
        if name not in self._points or teacher is None or name not in teacher._points:
            return None
        assert isinstance(metric, (SetMetric, PromptSetMetric))
        ours, theirs, distance = self._points[name], teacher._points[name], metric.distance
        if ours.shape[2:] != theirs.shape[2:]:
            self.notes.append(
                f"left out: {name}, as the teacher's points have {theirs.shape[2]} values, not {ours.shape[2]}"
            )
            return None
        if isinstance(metric, PromptSetMetric):
            self.single[name] = tuple((distance(one, other),) for one, other in zip(ours, theirs, strict=True))
            return self.spread(name, metric, teacher)

        def apart(prompts: Sequence[int]) -> float:
            one, other = ours[list(prompts)], theirs[list(prompts)]
            seeds = range(one.shape[1])
            others = [np.concatenate([other[:, k] for k in seeds if k != seed]) for seed in seeds]
            return float(np.mean([distance(one[:, seed], others[seed]) for seed in seeds]))

        return apart


def _value(spread: Spread, draws: NDArray[np.int64], single: tuple[tuple[float, ...], ...]) -> Value:
    value = spread(range(draws.shape[1]))
    resampled = np.array([spread(draw) for draw in draws])
    resampled += value - resampled.mean()
    return Value(value, *_interval(resampled), videos=single, resampled=resampled)


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _with_drift(value: Value, teacher: Value | None) -> Value:
    if teacher is None:
        return value
    drift = (value.mean - teacher.mean, *_interval(value.resampled - teacher.resampled))
    return Value(value.mean, value.low, value.high, drift, value.videos, value.resampled)


def _mean_places(
    names: Sequence[str],
    metrics: Mapping[str, Metric],
    values: Mapping[str, Mapping[str, Value]],
    teacher: Candidate | Clips | None,
) -> Floats | None:
    """Each model's mean place, from 1: [models, 1 + RESAMPLES], the first of all prompts; None where nothing orders them."""
    orders = []
    for name, metric in metrics.items():
        if any(name not in values[one] for one in names):
            continue
        own = {} if teacher is None else values[teacher.name]
        if metric.better == "closest to the teacher" and name not in own:
            continue
        whole = [[values[one][name].mean, *values[one][name].resampled] for one in names]
        of_teacher = [own[name].mean, *own[name].resampled] if name in own else [0.0] * len(whole[0])
        bad = np.array([[penalty(metric.better, v, t) for v, t in zip(row, of_teacher, strict=True)] for row in whole])
        bad = np.where(np.isnan(bad), np.inf, bad)
        # A place is one more than the models that are better, and half a place for each that is as good.
        orders.append(0.5 + (bad[None] < bad[:, None]).sum(1) + 0.5 * (bad[None] == bad[:, None]).sum(1))
    return np.mean(orders, axis=0) if orders else None


def as_json(
    evaluation: Evaluation, models: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """results.json: `about` as it is, the metrics, and all values by model, whose own descriptions are `models`."""
    metrics = {
        name: {"unit": metric.unit, "better": metric.better, "reads": metric.reads, "of": _kind(metric)}
        for name, metric in evaluation.metrics.items()
    }
    told = []
    for name, values in evaluation.values.items():
        measured: dict[str, dict[str, Any]] = {}
        for metric, value in values.items():
            measured[metric] = {"value": value.mean, "low": value.low, "high": value.high}
            if value.drift is not None:
                measured[metric]["drift"] = dict(zip(("value", "low", "high"), value.drift, strict=True))
            if value.videos:
                measured[metric]["videos"] = [list(one) for one in value.videos]
        place = (
            {"mean_place": evaluation.places[name], "best_in": evaluation.wins[name]}
            if name in evaluation.places
            else {}
        )
        told.append({"name": name, **models[name], **place, "metrics": measured})
    rule = (
        RULE_OF_PLACES
        if evaluation.by is None
        else RULE.format(evaluation.by, "the clips" if about.get("clips") else "its teacher's")
    )
    best = None if evaluation.best is None else {"name": evaluation.best, "by": evaluation.by, "rule": rule}
    return {
        **about,
        "intervals": INTERVALS,
        "metrics": metrics,
        "models": told,
        "best": best,
        "notes": evaluation.notes,
    }


def _kind(metric: Metric) -> str:
    kinds = {
        VideoMetric: "video",
        PromptMetric: "prompt",
        PairMetric: "video beside the teacher's",
        SetMetric: "all videos",
        PromptSetMetric: "prompt beside the teacher's",
    }
    return next(words for kind, words in kinds.items() if isinstance(metric, kind))
