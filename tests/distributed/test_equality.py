"""Two ranks of batch 1 are one rank of batch 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers

pytestmark = pytest.mark.distributed


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in sorted(line) if "loss" in key or key == "grad_norm"} for line in lines]


def work(name: str, world_size: int, out: Path, **options: Any) -> Path:
    run_workers(world_size, name, out, **options)
    return out


def assert_equal(one: Path, two: Path, tolerance: float = 1e-6) -> None:
    """Losses of every step and all weights, within `tolerance` of values around 1."""
    assert len(losses(one)) == len(losses(two)) == 20
    for step, (left, right) in enumerate(zip(losses(one), losses(two), strict=True), 1):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key] == pytest.approx(right[key], abs=tolerance, rel=tolerance), f"{key} of step {step}"
    left, right = (torch.load(folder / "weights.pt") for folder in (one, two))
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize("method", ["finetune", "dmd2"])
def test_two_ranks_of_batch_1_are_one_rank_of_batch_2(tmp_path, method):
    one = work("equality", 1, tmp_path / "one", method=method, batch_size=2)
    two = work("equality", 2, tmp_path / "two", method=method, batch_size=1)
    assert_equal(one, two)


def test_a_failing_rank_ends_the_others_and_shows_its_output(tmp_path):
    with pytest.raises(AssertionError, match=r"(?s)process 1 of 2.*it broke"):
        run_workers(2, "fails_on_rank_1", tmp_path)
    pid = tmp_path / "pid"
    assert not pid.exists() or not Path(f"/proc/{pid.read_text()}").exists()
