"""The fraction of tiles that sparse attention leaves out, by step."""

from __future__ import annotations

import pytest

from fastvideo_core.config.training import TrainingArgs


def ramp(sparsity: float, rate: float | None, interval: int = 1) -> TrainingArgs:
    given = {"VSA_sparsity": sparsity, "VSA_decay_rate": rate, "VSA_decay_interval_steps": interval}
    return TrainingArgs.model_validate({"output_dir": "out", "max_train_steps": 1, **given})


@pytest.mark.parametrize(("sparsity", "rate", "rises"), [(0.9, 0.1, 9), (0.9, 0.03, 30), (0.7, 0.1, 7), (0.8, 0.3, 3)])
def test_it_rises_in_whole_steps_and_reaches_its_end(sparsity, rate, rises):
    """In floats 0.9 // 0.1 is 8, where FastVideo's ramp stops for ever."""
    args = ramp(sparsity, rate, interval=50)
    values = [args.vsa_sparsity_at(step) for step in range(50 * rises + 200)]
    assert values[:50] == [0.0] * 50
    assert values[50] == pytest.approx(rate)
    assert values[50 * rises - 1] == pytest.approx((rises - 1) * rate)
    assert set(values[50 * rises :]) == {sparsity}
    assert values == sorted(values)


def test_without_a_rate_it_is_there_at_once():
    assert ramp(0.9, None).vsa_sparsity_at(1) == 0.9
