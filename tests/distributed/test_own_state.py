"""What differs over the processes is each one's own again at resume; on another number of processes it is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.errors import UserError
from fastvideo_testing.ranks import run_ranks
from tests.distributed import own_state

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
HALF, WHOLE = 3, 6


def train(out: Path, leg: str, steps: int, world_size: int = 2, **options: Any) -> list[dict[str, Any]]:
    arguments = {"out": out, "leg": leg, "steps": steps, **options}
    run_ranks("tests.distributed.own_state:train", arguments, world_size=world_size)
    return [torch.load(out.parent / f"{out.name}-{leg}-{rank}.pt") for rank in range(world_size)]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("own") / "run"
    return out, train(out, "first", WHOLE, training_state_checkpointing_steps=HALF)


def test_each_process_goes_on_with_its_own_data_and_its_own_part_of_a_callback(first, tmp_path):
    out, whole = first
    start = str(out / f"checkpoint-{HALF:06d}")
    again = train(tmp_path / "again", "second", WHOLE, resume_from_checkpoint=start)
    for one, other in zip(whole, again, strict=True):
        for then, now in zip(one["given"][HALF:], other["given"][HALF:], strict=True):
            assert torch.equal(then, now)
        assert torch.equal(one["data"]["generator"], other["data"]["generator"])
        assert torch.equal(one["total"], other["total"])
    assert not torch.equal(whole[0]["given"][-1], whole[1]["given"][-1])
    assert not torch.equal(whole[0]["total"], whole[1]["total"])


def test_early_stop_keeps_what_all_processes_added_up(first):
    _, ranks = first
    mean = (ranks[0]["sum"] + ranks[1]["sum"]) / 2
    assert ranks[0]["sum"] != ranks[1]["sum"]
    assert [rank["stored_sum"] for rank in ranks] == [pytest.approx(mean), pytest.approx(mean)]


def test_what_is_the_same_on_all_processes_has_no_files_of_its_own(first):
    out, _ = first
    folder = out / f"checkpoint-{WHOLE:06d}"
    state = json.loads((folder / "state.json").read_text())
    assert sorted(name for name in state["files"] if name.startswith("own/")) == [
        "own/rank-00000.safetensors",
        "own/rank-00001.safetensors",
    ]
    assert "dataloader" not in state["state"]
    assert sorted(state["state"]["callbacks"]["loss_sum"]) == ["first", "weights"]
    assert sorted(state["state"]["callbacks"]["early_stop"]) == ["best", "count", "sum", "without"]


def test_a_dataloader_of_each_processes_own_state_is_not_for_another_number_of_them(first, tmp_path):
    out, _ = first
    resumed = own_state.built(tmp_path / "one", WHOLE + 1, resume_from_checkpoint=str(out))
    with pytest.raises(UserError) as raised:
        resumed.train()
    text = str(raised.value)
    assert "its dataloader had a state of its own on each of 2 processes; this run has 1" in text
    assert "resume with 2 processes, or start the data afresh: --resume latest --new-data" in text
    options = {"resume_from_checkpoint": str(out), "resume_with_new_data": True}
    afresh = own_state.built(tmp_path / "afresh", WHOLE + 1, **options)
    afresh.train()
    assert (tmp_path / "afresh" / f"checkpoint-{WHOLE + 1:06d}").is_dir()


def test_a_callback_goes_on_with_the_main_processes_part_on_another_number_of_them(tmp_path, caplog):
    ranks = train(tmp_path / "two", "first", HALF, shuffled=False)
    resumed = own_state.built(tmp_path / "two", WHOLE, shuffled=False, resume_from_checkpoint="latest")
    loss_sum = resumed.callbacks.callbacks["loss_sum"]
    at_start: list[torch.Tensor] = []
    original = loss_sum.load_state_dict
    loss_sum.load_state_dict = lambda state: (at_start.append(state["total"]), original(state))
    with caplog.at_level("WARNING", "fastvideo_core"):
        resumed.train()
    assert torch.equal(at_start[0], ranks[0]["total"])
    text = "callbacks.loss_sum.total was not the same on the 2 processes that wrote the checkpoint: "
    assert text + "this run, of another number, goes on with that of process 0" in caplog.text


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_file_of_one_process_is_an_error_that_names_it(first, tmp_path, harm):
    out, _ = first
    folder = tmp_path / f"checkpoint-{WHOLE:06d}"
    shutil.copytree(out / folder.name, folder)
    path = folder / "own" / "rank-00000.safetensors"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\xff" * path.stat().st_size)
    resumed_with = {"resume_from_checkpoint": str(folder)}
    with pytest.raises(UserError, match=r"own/rank-00000\.safetensors"):
        own_state.built(tmp_path / "run", WHOLE + 1, **resumed_with).train()


def test_what_differs_is_not_kept_together_with_what_is_sharded(tmp_path):
    run_ranks("tests.distributed.own_state:refused", {"out": tmp_path / "run"})
    for rank in (0, 1):
        text = (tmp_path / f"run-{rank}.txt").read_text()
        assert "callbacks.loss_sum.all: a sharded tensor is kept together with something" in text
        assert "keep what differs under a key of its own" in text
