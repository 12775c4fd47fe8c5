"""A validation of two processes that share their networks is left by both together, or ends the run with words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_testing.ranks import run_ranks
from tests.distributed.validations import CALLS, PROMPTS

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """What became of every scene, by rank."""
    out = tmp_path_factory.mktemp("validations")
    (out / "prompts.txt").write_text("x")
    run_ranks("tests.distributed.validations:play", {"out": out})
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(2)]
    return out, {name: [rank[name] for rank in ranks] for name in ranks[0]}


@pytest.mark.parametrize(("name", "signal", "status"), [("terminated", "SIGTERM", 143), ("hung up", "SIGHUP", 129)])
def test_a_stop_of_one_process_ends_the_sampling_of_all_at_the_same_call(scenes, name, signal, status):
    for rank in scenes[1][name]:
        assert rank["status"] == status
        assert rank["text"].startswith(f"stopped by {signal} after step 2, and saved as checkpoint-000002")
        assert rank["calls"] == CALLS + 2
        assert rank["checkpoints"] == ["checkpoint-000002"]


@pytest.mark.parametrize("name", ["between calls", "decoding"])
def test_a_prompt_that_fails_on_one_process_is_left_by_all_and_training_goes_on(scenes, name):
    ranks = scenes[1][name]
    for rank in ranks:
        assert (rank["error"], rank["checkpoints"]) == (None, ["checkpoint-000002", "checkpoint-000004"])
    assert ranks[0]["calls"] == ranks[1]["calls"]
    if name == "decoding":  # where the main process went on to its end
        assert ranks[0]["calls"] == 2 * PROMPTS * CALLS
    else:
        assert ranks[0]["videos"] == ["00.mp4", "02.mp4"]


def test_the_failure_that_ends_the_run_is_told_by_all_with_the_process_and_is_saved(scenes):
    for rank in scenes[1]["may not fail"]:
        assert rank["error"] == "ValidationError"
        assert f"validation prompt 2 of 3 (process 1): RuntimeError: call {CALLS + 2} failed" in rank["text"]
        assert "the run ends for that; its state after step 2 is saved" in rank["text"]
        assert rank["checkpoints"] == ["checkpoint-000002"]


def test_a_network_that_fails_on_all_processes_ends_the_run_with_its_state_saved(scenes):
    for rank in scenes[1]["inside all"]:
        assert rank["error"] == "ValidationError"
        assert f"RuntimeError: inside {CALLS + 2} failed" in rank["text"]
        assert "a network that several processes share failed in its call" in rank["text"]
        assert rank["checkpoints"] == ["checkpoint-000002"]


def test_a_network_that_fails_on_one_process_alone_ends_the_run_with_words_and_loses_no_step(scenes):
    first, second = scenes[1]["inside one"]
    assert f"RuntimeError: inside {CALLS + 2} failed" in second["text"]
    for rank in (first, second):
        assert rank["error"] == "FastVideoError"
        assert "nothing after the last checkpoint can be saved" in rank["text"]
        assert rank["checkpoints"] == ["checkpoint-000002"]  # of before the validation, as none went well yet


def test_what_was_saved_after_a_failed_validation_goes_on_as_if_nothing_had_been(scenes):
    """Averages that were lent are back, and weights that were gathered are shards again."""
    out, _ = scenes
    good = out / "terminated" / "checkpoint-000002"
    for name in ("hung-up", "may-not-fail", "inside-all", "inside-one"):
        for ema in (False, True):
            wanted = read_role_weights(good, "student", ema=ema)["transformer"]
            found = read_role_weights(out / name / "checkpoint-000002", "student", ema=ema)["transformer"]
            assert wanted.keys() == found.keys()
            assert all(found[key].equal(wanted[key]) for key in wanted), (name, ema)
