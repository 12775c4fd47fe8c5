"""Roles with a network for each range of noise levels, on one process and on two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.ranks import run_workers
from tests.distributed.two_networks import STEPS

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def train(out: Path, world_size: int, method: str, **options: Any) -> Path:
    """Four samples a step, shared by the processes."""
    run_workers(world_size, "two_networks", out, method=method, batch_size=4 // world_size, **options)
    return out


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in sorted(line) if "loss" in key} for line in lines]


def distance(one: Path, other: Path) -> float:
    """Of the weights that differ most."""
    left, right = (torch.load(folder / "weights.pt") for folder in (one, other))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.fixture(scope="module", params=["finetune", "dmd2", "phased", "consistency", "kd", "rcm"])
def trained(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """The method, its run on one process and its run on two."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, train(out / "one", 1, request.param), train(out / "two", 2, request.param)


def test_two_processes_train_as_one_does(trained):
    _, one, two = trained
    for step, (left, right) in enumerate(zip(losses(one), losses(two), strict=True), 1):
        assert left == pytest.approx(right, abs=1e-5, rel=1e-5), f"step {step}"
    assert distance(one, two) < 1e-5


def test_an_iteration_moves_one_network_of_a_role_and_leaves_the_other_s_bits(trained):
    method, one, two = trained
    role = "critic" if method in ("dmd2", "phased") else "student"
    moved = torch.load(one / "moved.pt")
    assert moved == torch.load(two / "moved.pt")
    networks = [[name for name in names if name.startswith(f"{role}.")] for names in moved]
    assert all(len(names) == 1 for names in networks)
    assert {name for names in networks for name in names} == {f"{role}.transformer", f"{role}.transformer_2"}
    if method == "phased":
        assert not any("student.transformer_2" in names for names in moved)
    if role == "critic":
        assert ["student.transformer" in names for names in moved] == [False, True] * (STEPS // 2)


def test_a_run_that_is_resumed_while_one_network_was_never_stepped_ends_with_the_same_bits(trained, tmp_path):
    method, one, two = trained
    # On one process there are no shards, and one method is enough to say so.
    for world_size, straight in ((1, one), (2, two)) if method == "dmd2" else ((2, two),):
        out = tmp_path / str(world_size)
        train(out, world_size, method, training={"max_train_steps": 2 if method in ("dmd2", "phased") else 1})
        train(out, world_size, method, training={"resume_from_checkpoint": "latest"})
        assert distance(straight, out) == 0


def test_accumulated_rounds_keep_the_range_of_their_iteration(tmp_path):
    rounds = {"gradient_accumulation_steps": 2}
    out = train(tmp_path / "rounds", 2, "dmd2", training=rounds)
    for names in torch.load(out / "moved.pt"):
        assert sum(name.startswith("critic.") for name in names) == 1


def test_a_range_of_each_process_s_own_is_ended_with_words(tmp_path):
    with pytest.raises(
        AssertionError, match=r"(?s)calls role 'student' at timesteps from .* at once.*below and above 600"
    ):
        train(tmp_path / "two", 2, "finetune", wrong=["range per rank"])


def test_a_range_of_each_process_s_own_would_train_something_else(trained, tmp_path):
    """What the check of ranges is for: no error, and other weights."""
    method, one, _ = trained
    if method not in ("finetune", "dmd2"):
        pytest.skip("whose draws these are makes no difference")
    assert distance(one, train(tmp_path / "two", 2, method, wrong=["range per rank", "unchecked"])) > 1e-2


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_method_that_knows_nothing_of_ranges_is_ended_with_words(tmp_path, world_size):
    with pytest.raises(AssertionError, match=r"(?s)'predict_noise' calls role 'student'.*draw_in_one_range"):
        train(tmp_path / "out", world_size, "ignorant")
