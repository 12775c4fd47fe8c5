"""Values, intervals, places and the best model, on videos whose numbers are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError
from fastvideo_evaluate import PairMetric, PromptSetMetric, Sample, SetMetric, VideoMetric
from fastvideo_evaluate.command.results import RESAMPLES, as_json, measure, usable
from fastvideo_evaluate.command.sampling import Shared
from fastvideo_evaluate.page.evaluation import _chosen

PROMPTS = 8
SHARED = Shared([ValidationPrompt(f"prompt {number}", seed=0) for number in range(PROMPTS)], 2)
TEACHER, GOOD, FAR, COLLAPSED = (SimpleNamespace(name=name) for name in ("teacher", "good", "far", "collapsed"))


class Light(VideoMetric):
    unit, better = "", "closest to the teacher"

    def measure(self, video: Sample) -> float:
        return float(video.frames.mean())


class Apart(PairMetric):
    unit, better = "", "lower"

    def measure(self, video: Sample, teacher: Sample) -> float:
        return abs(float(video.frames.mean()) - float(teacher.frames.mean()))


class Spread(SetMetric):
    unit, better, reads = "", "lower", "latents"

    def features(self, video: Sample) -> Any:
        return video.latents

    def distance(self, points: Any, teacher: Any) -> float:
        return abs(float(points.std()) - float(teacher.std()))


METRICS = {"light": Light(), "apart": Apart(), "spread": Spread()}


class Videos:
    """Grey videos: the teacher's light is 10 times the prompt's number, of the others so much more."""

    more: ClassVar[dict[str, int]] = {"teacher": 0, "good": 1, "far": 5}

    def sample(self, model: str, prompt: int, seed: int, caption: str) -> Sample:
        light = 40 if model == "collapsed" else 10 * prompt + seed + self.more[model]
        frames = np.full((2, 4, 4, 3), light, dtype=np.uint8)
        return Sample(caption, seed, frames, 8.0, np.array([light], dtype=np.float32))


def measured(*candidates: Any, teacher: Any = TEACHER) -> Any:
    return measure(candidates, teacher, SHARED, Videos(), METRICS)  # type: ignore[arg-type]


def test_values_drifts_and_what_keeps_pairs() -> None:
    found = measured(GOOD, FAR)
    light = found.values["far"]["light"]
    assert light.mean == pytest.approx(35.5 + 5)
    assert light.drift == pytest.approx((5, 5, 5))  # the same prompts are drawn for both
    assert light.videos[3] == (35, 36)
    assert found.values["good"]["apart"].mean == pytest.approx(1)
    assert "apart" not in found.values["teacher"]
    assert "spread" in found.values["teacher"]
    assert found.values["far"]["spread"].mean == pytest.approx(0, abs=1e-5)


def test_sets_have_no_noise_in_common() -> None:
    class Least(Spread):
        def distance(self, points: Any, teacher: Any) -> float:
            return float(np.abs(points - teacher.T).min())

    found = measure([GOOD], TEACHER, SHARED, Videos(), {"least": Least()})  # type: ignore[arg-type]
    assert found.values["teacher"]["least"].mean == 1  # 0 beside itself
    assert found.values["good"]["least"].mean == 1  # 0 at one seed, 2 at the other


def test_an_interval_is_that_of_a_mean_over_prompts() -> None:
    value = measured(GOOD).values["good"]["light"]
    means = 10 * np.arange(PROMPTS) + 1.5
    error = means.std() / np.sqrt(PROMPTS)
    assert (value.low, value.high) == pytest.approx(
        (value.mean - 1.96 * error, value.mean + 1.96 * error), abs=0.3 * error
    )
    assert len(value.resampled) == RESAMPLES
    assert value.resampled.mean() == pytest.approx(value.mean)


def test_the_nearest_to_the_teacher_is_the_best_and_a_collapse_comes_last() -> None:
    found = measured(COLLAPSED, FAR, GOOD)
    assert found.best == "good"
    assert found.places["good"] < found.places["far"]
    # Its mean light is no farther off than that of `far`; spread and pairs tell.
    assert max(found.places, key=lambda name: found.places[name]) == "collapsed"
    assert found.wins["good"] > 0.5 > found.wins["far"]
    assert sum(found.wins.values()) == pytest.approx(1)


class Middle(PromptSetMetric):
    """As if prompt 0 were all that counts of `far`."""

    unit, better = "", "lower"

    def features(self, video: Sample) -> Any:
        return video.frames.mean(axis=(1, 2, 3))

    def distance(self, points: Any, teacher: Any) -> float:
        assert points.shape == (2, 2)
        apart = float((points - teacher).mean())
        return -apart if apart > 2 else apart


def test_what_compares_prompts_decides_and_places_do_not() -> None:
    metrics = {"light": Light(), "apart": Apart(), "latent_prompt_energy": Middle()}
    found = measure([GOOD, FAR], TEACHER, SHARED, Videos(), metrics)  # type: ignore[arg-type]
    assert found.values["far"]["latent_prompt_energy"].videos == ((-5,),) * PROMPTS
    assert found.values["far"]["latent_prompt_energy"].mean == -5
    assert found.values["teacher"]["latent_prompt_energy"].mean == 0
    assert found.places["good"] < found.places["far"]
    assert (found.best, found.by, found.wins["far"]) == ("far", "latent_prompt_energy", 1)
    told = as_json(found, {"teacher": {}, "good": {}, "far": {}}, {})
    assert told["best"]["rule"].startswith("the best has the lowest latent_prompt_energy: ")
    assert usable(metrics, None, TEACHER, Shared(SHARED.prompts, 1), keeps_pairs=True)[0].keys() == {"light", "apart"}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["latent_prompt_energy", "middle"])
def test_a_model_without_a_number_is_never_the_best(name: str) -> None:
    class Broken(Middle):
        def distance(self, points: Any, teacher: Any) -> float:
            return float("nan") if (points - teacher).mean() > 2 else 1.0

    found = measure([FAR, GOOD], TEACHER, SHARED, Videos(), {name: Broken()})  # type: ignore[arg-type]
    assert (found.best, found.wins["good"], found.places) == ("good", 1, {"far": 2, "good": 1})
    assert f"no number: {name} of far, which counts as the worst" in found.notes
    assert measure([FAR], TEACHER, SHARED, Videos(), {"latent_prompt_energy": Broken()}).best is None  # type: ignore[arg-type]


def test_equal_models_share_a_place_and_the_earlier_one_is_the_best() -> None:
    twin = SimpleNamespace(name="good")
    found = measure([GOOD, FAR], TEACHER, SHARED, _Twins(), {"light": Light()})  # type: ignore[arg-type]
    assert found.places == {"good": 1.5, "far": 1.5}
    assert found.best == twin.name


class _Twins(Videos):
    more: ClassVar[dict[str, int]] = {"teacher": 0, "good": 2, "far": 2}


def test_without_a_teacher_nothing_is_the_best() -> None:
    found = measure([GOOD, FAR], None, SHARED, Videos(), {"light": Light()})  # type: ignore[arg-type]
    assert (found.best, found.places) == (None, {})
    assert found.values["good"]["light"].drift is None
    told = as_json(found, {"good": {}, "far": {}}, {"seeds": 2})
    assert told["best"] is None
    assert told["models"][1]["metrics"]["light"]["value"] == pytest.approx(40.5)


def test_latents_that_a_sampler_does_not_give_are_told() -> None:
    class Without(Videos):
        def sample(self, *args: Any) -> Sample:
            video = super().sample(*args)
            return Sample(video.prompt, video.seed, video.frames, video.fps)

    found = measure([GOOD], TEACHER, SHARED, Without(), METRICS)  # type: ignore[arg-type]
    assert "spread" not in found.values["good"]
    assert "left out: spread reads latents, which the sampler of good does not give" in found.notes


def test_what_cannot_be_measured_is_left_out_or_refused() -> None:
    kept, notes = usable(METRICS, None, None, SHARED, keeps_pairs=True)
    assert list(kept) == ["light"]
    assert len(notes) == 2
    with pytest.raises(ConfigError, match="spread needs a teacher"):
        usable(METRICS, ["spread"], None, SHARED, keeps_pairs=True)
    kept, (note,) = usable(METRICS, None, TEACHER, SHARED, keeps_pairs=False)  # type: ignore[arg-type]
    assert "apart" not in kept
    assert "apart compares pairs" in note
    assert "apart" in usable(METRICS, ["apart"], TEACHER, SHARED, keeps_pairs=False)[0]  # type: ignore[arg-type]


def test_of_many_models_the_ends_and_the_best_are_shown() -> None:
    assert _chosen(range(5), 8) == [0, 1, 2, 3, 4]
    assert _chosen(range(20), 4, always=[7]) == [0, 6, 7, 13, 19]
