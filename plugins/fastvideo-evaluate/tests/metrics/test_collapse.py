"""Every metric ranks a planted collapse last, and comes to what is known of known shifts and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fastvideo_evaluate import (
    Metric,
    PairMetric,
    PromptMetric,
    PromptSetMetric,
    Sample,
    SetMetric,
    VideoMetric,
    load_metrics,
    penalty,
)

PROMPTS, SEEDS = 6, 3
OF_PROMPTS = ("frame_prompt_energy", "latent_prompt_energy")
COMPARED = ("frame_wasserstein", "frame_energy", "latent_wasserstein", "latent_energy")


def clip(prompt: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    """A soft bright square that moves over a background of the prompt's colour, with its own place, speed and noise."""
    background = np.array([[90, 60, 60], [60, 90, 60], [60, 60, 90]][prompt % 3]) + rng.integers(-10, 10)
    frames = np.broadcast_to(background, (8, 24, 24, 3)).astype(float)
    x, y = rng.integers(0, 8, 2)
    for t in range(8):
        frames[t, y : y + 8, x + t : x + t + 8] += 80
    return np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)


def latents_of(frames: np.ndarray) -> np.ndarray:
    """As a decoder's inverse would: one channel a colour, a quarter of the size, about -1 to 1."""
    return frames.reshape(8, 6, 4, 6, 4, 3).mean(axis=(2, 4)).transpose(3, 0, 1, 2) / 64 - 1.5


def model(seed: int, change: Callable[[np.ndarray, list[np.ndarray]], np.ndarray] = lambda one, _: one) -> list[Sample]:
    """What a model makes of all prompts and seeds; `change` is told a clip and the earlier ones of its prompt."""
    made = []
    for prompt in range(PROMPTS):
        earlier: list[np.ndarray] = []
        for number in range(SEEDS):
            earlier.append(change(clip(prompt, number, np.random.default_rng([seed, prompt, number])), earlier))
            made.append(Sample(f"{prompt}", number, earlier[-1], 16, latents_of(earlier[-1])))
    return made


TEACHER, GOOD = model(0), model(1)


def changed(change: Callable[[np.ndarray], np.ndarray]) -> list[Sample]:
    """The good student's clips, each changed; `change` takes and gives floats."""
    return model(1, lambda one, _: np.clip(change(one.astype(float)), 0, 255).astype(np.uint8))


UNSTEADY = np.where(np.arange(8) % 2, 1.3, 0.7)[:, None, None, None]
COLLAPSES = {
    "all seeds equal": model(1, lambda one, earlier: earlier[0] if earlier else one),
    "static": changed(lambda one: np.repeat(one[:1], len(one), axis=0)),
    "dark": changed(lambda one: one * 0.3),
    "grey": changed(lambda one: np.repeat(one.mean(axis=-1, keepdims=True), 3, axis=-1)),
    "over-saturated": changed(lambda one: 3 * one - 2 * one.mean(-1, keepdims=True)),
    "flickering": changed(lambda one: one * UNSTEADY),
    "blurred": changed(lambda one: np.mean([np.roll(one, n, 2) for n in range(-2, 3)], axis=0)),
    "washed out": changed(lambda one: one * 0.4 + 50),
    "prompts swapped": GOOD[SEEDS:] + GOOD[:SEEDS],
}
SEEN_BY = {
    "brightness": ("dark",),
    "contrast": ("dark", "washed out"),
    "saturation": ("grey", "over-saturated"),
    "sharpness": ("blurred", "washed out"),
    "motion": ("static",),
    "flicker": ("flickering",),
    "diversity": ("all seeds equal",),
    **dict.fromkeys(COMPARED, ("dark", "over-saturated", "washed out")),
    **dict.fromkeys(OF_PROMPTS, ("dark", "over-saturated", "washed out", "all seeds equal", "prompts swapped")),
    "optical_flow": ("static",),
}
METRICS = [name for name in SEEN_BY if name != "optical_flow"]


def value(metric: Metric, videos: list[Sample]) -> float:
    """Of a model's videos, the mean where there are several values."""
    if isinstance(metric, VideoMetric):
        return float(np.mean([metric.measure(video) for video in videos]))
    if isinstance(metric, PromptMetric):
        return float(np.mean([metric.measure(videos[i : i + SEEDS]) for i in range(0, len(videos), SEEDS)]))
    if isinstance(metric, PairMetric):
        return float(np.mean([metric.measure(*pair) for pair in zip(videos, TEACHER, strict=True)]))
    assert isinstance(metric, (SetMetric, PromptSetMetric))
    mine, teachers = (np.stack([metric.features(video) for video in one]) for one in (videos, TEACHER))
    if isinstance(metric, SetMetric):
        return metric.distance(mine, teachers)
    prompts = [slice(i, i + SEEDS) for i in range(0, len(videos), SEEDS)]
    return float(np.mean([metric.distance(mine[one], teachers[one]) for one in prompts]))


def ranked(name: str, models: dict[str, list[Sample]]) -> list[str]:
    """Their names, the best first."""
    metric = load_metrics([name])[name]
    of_teacher = value(metric, TEACHER)
    return sorted(models, key=lambda one: penalty(metric.better, value(metric, models[one]), of_teacher))


@pytest.mark.parametrize("name", METRICS)
def test_a_planted_collapse_ranks_behind_a_good_student(name: str) -> None:
    for collapse in SEEN_BY[name]:
        assert ranked(name, {"good": GOOD, collapse: COLLAPSES[collapse]}) == ["good", collapse], collapse


def test_optical_flow_ranks_static_videos_last_and_is_the_speed_of_a_shift():
    pytest.importorskip("cv2")
    assert ranked("optical_flow", {"good": GOOD, "static": COLLAPSES["static"]}) == ["good", "static"]
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (16, 16)), np.ones((4, 4)))
    for _ in range(4):
        picture = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1)) / 3
    frames = np.stack([np.roll(picture, 2 * t, axis=1) for t in range(5)])[..., None].repeat(3, axis=-1)
    metric = load_metrics(["optical_flow"])["optical_flow"]
    assert isinstance(metric, VideoMetric)
    speed = metric.measure(Sample("", 0, frames.astype(np.uint8), 16)) * math.hypot(64, 64)
    assert speed == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize(("of_prompts", "of_all"), zip(OF_PROMPTS, ("frame_energy", "latent_energy"), strict=True))
def test_a_model_that_swaps_prompts_is_seen_by_what_compares_prompts_alone(of_prompts: str, of_all: str) -> None:
    conditional, pooled = load_metrics([of_prompts, of_all]).values()
    swapped = COLLAPSES["prompts swapped"]
    assert value(pooled, swapped) == pytest.approx(value(pooled, GOOD))
    assert value(conditional, swapped) > 2 * abs(value(conditional, GOOD))
    assert value(conditional, TEACHER) == 0


def shifted(videos: list[Sample], by: float) -> list[Sample]:
    return [Sample(v.prompt, v.seed, (v.frames + 51 * by).astype(np.uint8), v.fps, v.latents + by) for v in videos]


@pytest.mark.parametrize(("name", "shift"), [("frame_wasserstein", 0.2), ("latent_wasserstein", 1.0)])
def test_the_distance_of_a_shifted_set_is_the_shift(name: str, shift: float) -> None:
    metric = load_metrics([name])[name]
    assert value(metric, TEACHER) == 0
    assert value(metric, shifted(TEACHER, 1.0)) == pytest.approx(shift, rel=0.25)
    assert value(metric, shifted(TEACHER, 1.0)) == pytest.approx(2 * value(metric, shifted(TEACHER, 0.5)), rel=0.03)


def test_the_energy_of_gaussian_latents_is_the_closed_form():
    """In many dimensions the root mean square differences of N(d, I) and N(0, I) are sqrt(2 + d^2), within each sqrt(2)."""
    rng = np.random.default_rng(0)
    metric = load_metrics(["latent_energy"])["latent_energy"]
    assert isinstance(metric, SetMetric)
    blank = np.zeros((1, 1, 1, 3), np.uint8)
    sets = [[Sample("", n, blank, 16, rng.standard_normal((4, 50, 20)) + d) for n in range(20)] for d in (0.0, 0.7)]
    points = [np.stack([metric.features(video) for video in one]) for one in sets]
    assert metric.distance(points[1], points[0]) == pytest.approx(2 * (math.sqrt(2.49) - math.sqrt(2)), rel=0.03)
    assert abs(metric.distance(points[0][:10], points[0][10:])) < 0.01


def test_pairs_are_as_far_apart_as_they_were_shifted():
    frames, latents = load_metrics(["paired_frames", "paired_latents"]).values()
    assert value(frames, shifted(TEACHER, 1.0)) == pytest.approx(0.2)
    assert value(latents, shifted(TEACHER, -0.3)) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="the latents of 'a cat', seed 3, were not kept"):
        latents.measure(TEACHER[0], Sample("a cat", 3, TEACHER[0].frames, 16))  # type: ignore[attr-defined]
