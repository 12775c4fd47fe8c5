"""Statistics of latent clips against closed forms, and what drift says of planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastvideo_evaluate.watch.statistics import Statistics, Sums, drift, sure
from fastvideo_evaluate.watch.verdict import described, is_off, worst


def clips(prompts: int = 6, seeds: int = 4) -> Tensor:
    """[P, S, 2, 4, 8, 8]: every prompt and every seed has a picture of its own, and frames move."""
    generator = torch.Generator().manual_seed(0)
    of_prompt = torch.randn(prompts, 1, 2, 1, 8, 8, generator=generator)
    of_seed = torch.randn(prompts, seeds, 2, 1, 8, 8, generator=generator)
    of_frame = torch.randn(prompts, seeds, 2, 4, 8, 8, generator=generator)
    return of_prompt + of_seed + 0.5 * of_frame + torch.tensor([1.0, -2.0])[:, None, None, None]


def statistics(x: Tensor) -> Statistics:
    sums = Sums()
    for part in x.split(2):
        sums.add(part)
    return sums.result()


def test_statistics_are_those_of_plain_formulas() -> None:
    x = clips().double()
    found, flat = statistics(x), x.flatten(0, 1)
    torch.testing.assert_close(found.mean, flat.mean((0, 2, 3, 4)))
    assert found.spread == pytest.approx(float(flat.flatten(2).var(2, correction=0).mean()) ** 0.5)
    coarse = flat.reshape(24, 2, 2, 2, 4, 2, 4, 2).mean((3, 5, 7))
    assert found.variation == pytest.approx(float(coarse.var(0).mean()) ** 0.5)
    assert found.seeds == pytest.approx(float(coarse.reshape(6, 4, -1).var(1).mean()) ** 0.5)
    assert found.motion == pytest.approx(float((flat[:, :, 1:] - flat[:, :, :-1]).square().mean()) ** 0.5)


def test_a_single_frame_has_no_motion_and_a_single_clip_no_variation() -> None:
    alone = statistics(clips()[:1, :1, :, :1])
    assert (alone.motion, alone.variation, alone.seeds) == (None, None, None)
    assert drift(alone, statistics(clips())).keys() == {"mean", "spread"}


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, float]]] = {
    "moved": (lambda x: x + 0.5, {"spread": 0, "variation": 0, "seeds": 0, "motion": 0}),
    "over-saturated": (lambda x: 3 * x, {name: math.log(3) for name in ("spread", "variation", "seeds", "motion")}),
    "static": (lambda x: x.mean(3, keepdim=True).expand_as(x), {"motion": -math.log(1e3)}),
    "one picture a prompt": (lambda x: x[:, :1].expand_as(x), {"seeds": -math.log(1e3)}),
    "one picture": (lambda x: x[:1, :1].expand_as(x), {"seeds": -math.log(1e3), "variation": -math.log(1e3)}),
    "not finite": (lambda x: x * math.nan, {"mean": math.inf, "spread": math.inf}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_drift_has_the_size_and_direction_of_a_planted_fault(fault: str) -> None:
    x, (planted, expected) = clips(), FAULTS[fault]
    found = drift(statistics(planted(x)), statistics(x))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    if fault == "moved":
        reference = statistics(x)
        assert reference.variation is not None
        assert found["mean"] == pytest.approx(0.5 / math.hypot(reference.spread, reference.variation))
    assert is_off(worst(found)[1], 0.0, 1.2)


def test_nothing_drifts_from_itself() -> None:
    measures = drift(statistics(clips()), statistics(clips()))
    assert worst(measures)[1] == pytest.approx(0, abs=1e-12)
    assert not is_off(worst(measures)[1], 0.0, 1.2)


def test_of_few_prompts_only_what_cannot_be_chance_counts() -> None:
    """Clips whose contrast varies by a fifth from one to the next."""
    generator = torch.Generator().manual_seed(0)

    def made(count: int, contrast: float) -> Statistics:
        x = torch.randn(count, 1, 4, 4, 16, 16, generator=generator)
        return statistics(contrast * x * (0.2 * torch.randn(count, 1, 1, 1, 1, 1, generator=generator)).exp())

    data = made(400, 1.0)
    assert data.noise["spread"] == pytest.approx(0.2, rel=0.15)
    chance = [sure(made(2, 1.0), data, 2) for _ in range(200)]
    assert sum(is_off(worst(one)[1], 0.0, 1.3) for one in chance) == 0
    seen = [sure(made(2, 2.5), data, 2) for _ in range(100)]
    assert sum(is_off(worst(one)[1], 0.0, 1.3) for one in seen) > 70
    many = made(16, 1.4)
    assert sure(many, data, 16) == drift(many, data)


def test_the_noise_of_the_mean_is_in_units_of_drift() -> None:
    x = clips().double().flatten(0, 1)[:, None]
    found, of_clips = statistics(x), x.mean((1, 3, 4, 5))
    assert found.variation is not None
    error = of_clips.var(0, correction=0).mean().sqrt() / math.hypot(found.spread, found.variation)
    assert found.noise["mean"] == pytest.approx(float(error))


def test_processes_that_share_their_samples_are_counted_once() -> None:
    once, twice = Sums(), Sums()
    once.add(clips())
    for _ in range(2):
        twice.add(clips())
    assert twice.result(2).variation == once.result().variation != twice.result().variation


def test_what_is_off_is_counted_from_the_best_look() -> None:
    assert not is_off(math.log(3), math.log(2), 1.6)
    assert is_off(math.log(3), math.log(2), 1.4)
    assert is_off(math.nan, 0.0, 100.0)
    assert is_off(math.inf, math.inf, 1.4)
    assert not is_off(9.0, math.inf, 1.4)


@pytest.mark.parametrize(
    ("measures", "text"),
    [
        ({"mean": 0.1, "spread": math.log(2)}, "the spread is 2 times that of the data: over-saturated or noisy"),
        ({"mean": 0.1, "motion": -math.log(4)}, "the motion is 0.25 times that of the data: static"),
        ({"mean": 1.5, "seeds": 0.1}, "the mean is 1.5 standard deviations from that of the data: "),
        ({"mean": math.inf}, "the samples are not finite"),
    ],
)
def test_it_is_said_what_is_off_and_by_how_much(measures: dict[str, float], text: str) -> None:
    assert described(measures, "the data").startswith(text)
