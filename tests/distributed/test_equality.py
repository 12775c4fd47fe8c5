"""Two ranks of batch 1 are one rank of batch 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.methods import ALL

pytestmark = pytest.mark.distributed


TOLERANCES = {"rcm": 1e-5}
"""Of methods whose gradient is a difference of larger terms, in which float32's rounding shows: rcm's tangent."""


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


@pytest.mark.parametrize("method", ALL)
def test_two_ranks_of_batch_1_are_one_rank_of_batch_2(tmp_path, method):
    one = work("equality", 1, tmp_path / "one", method=method, batch_size=2)
    two = work("equality", 2, tmp_path / "two", method=method, batch_size=1)
    assert_equal(one, two, TOLERANCES.get(method, 1e-6))


def test_a_fused_optimizer_leaves_the_same_update_out_on_the_device_as_the_host_does(tmp_path):
    """As on GPUs: sharded parameters, and a flag that the host has not read when the update is made."""
    host = torch.load(work("spoiled", 2, tmp_path / "host", fused=False) / "state.pt")
    on_device = torch.load(work("spoiled", 2, tmp_path / "device", fused=True) / "state.pt")
    assert host["schedules"] == on_device["schedules"] == {"student": 2, "critic": 4}
    for kind in ("weights", "moments", "ema"):
        assert host[kind].keys() == on_device[kind].keys()
        for name, value in host[kind].items():
            assert value.isfinite().all()
            torch.testing.assert_close(value, on_device[kind][name], atol=1e-6, rtol=1e-6, msg=f"{kind} {name}")


def test_a_failing_rank_ends_the_others_and_shows_its_output(tmp_path):
    with pytest.raises(AssertionError, match=r"(?s)process 1 of 2.*it broke"):
        run_workers(2, "fails_on_rank_1", tmp_path)
    pid = tmp_path / "pid"
    assert not pid.exists() or not Path(f"/proc/{pid.read_text()}").exists()
