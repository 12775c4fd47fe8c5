"""Checkpoints that an earlier version wrote are read, and the same run writes the same files.

`format_4/checkpoint-000002` is that of `saved` below, written by the code before 0.1.0's last rewriting. When the layout changes,
FORMAT must change.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import safetensors.torch
import torch

from fastvideo_core.checkpoint.storage import StoredFile, checksum, choose
from fastvideo_core.checkpoint.weights import describe, read_role_weights

from .toy_run import assert_same, sign, toy_run

STORED = Path(__file__).parent / "format_4" / "checkpoint-000002"


def saved(folder) -> Path:
    run = toy_run(folder)
    torch.manual_seed(11)
    return run.steps(1, 2).manager.save(2)


def header(file: Path) -> dict:
    size = int.from_bytes(file.read_bytes()[:8], "little")
    return json.loads(file.read_bytes()[8 : 8 + size])


def layout(folder: Path):
    """What state.json holds, but for versions and what torch adds to optimizers and schedulers from version to version."""
    document = json.loads((folder / "state.json").read_text())
    state = document["state"]
    for role, optimizers in state["optimizers"].items():
        for optimizer in optimizers.values():
            optimizer["param_groups"] = [{"params": group["params"]} for group in optimizer["param_groups"]]
        state["lr_schedulers"][role] = list(state["lr_schedulers"][role])
    return form({**document, "versions": {}})


def form(node):
    """Numbers may differ from machine to machine; what they are and where they stand may not."""
    if isinstance(node, dict):
        return [(key, form(value)) for key, value in node.items()]
    return [form(item) for item in node] if isinstance(node, list) else node if isinstance(node, str) else type(node)


def test_the_layout_of_every_file_is_that_of_the_stored_checkpoint(tmp_path):
    path = saved(tmp_path)
    names = sorted(file.relative_to(STORED).as_posix() for file in STORED.rglob("*") if file.is_file())
    assert sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()) == names
    for name in (name for name in names if name.endswith(".safetensors")):
        assert header(path / name) == header(STORED / name), name
    assert layout(path) == layout(STORED)
    assert (path / "state.json").read_text().startswith('{\n "format": 4,\n "step": 2,\n "world_size": 1,\n')


def test_a_checkpoint_of_an_earlier_version_is_resumed_with_all_its_state(tmp_path):
    shutil.copytree(STORED, tmp_path / STORED.name)
    run = toy_run(tmp_path, seed=100)
    assert run.load(choose("latest", tmp_path).path) == 2
    for section in ("roles", "optimizers"):
        stored = safetensors.torch.load_file(STORED / "state" / f"{section}-rank-00000.safetensors")
        again = run.manager.save(3) / "state" / f"{section}-rank-00000.safetensors"
        assert_same(safetensors.torch.load_file(again), stored)
    assert len(run.method.history) == run.loader.position == 2
    assert run.callbacks.callbacks["counter"].state["seen"] == {7: (1, 2.5)}
    streams = safetensors.torch.load_file(STORED / "rng" / "rank-00000.safetensors")
    assert torch.equal(torch.get_rng_state(), streams["torch/cpu"])
    assert torch.equal(run.method.adapter.generator.get_state(), streams["adapter/augmentation"])
    assert torch.equal(run.method.rng.local("noise").get_state(), streams["method/local/noise"])


def test_the_weights_of_an_earlier_version_s_checkpoint_are_read():
    info = describe(STORED)
    assert (info.roles, info.ema_roles) == ({"student": ("net",), "critic": ("net",)}, ("student",))
    stored = safetensors.torch.load_file(STORED / "state" / "roles-rank-00000.safetensors")
    weights = read_role_weights(STORED, "student", ema=False)["net"]
    assert_same(weights, {name: stored[f"roles.student.net.{name}"] for name in weights})


def test_each_rank_s_own_state_is_read_from_its_file(tmp_path):
    path = saved(tmp_path)
    file = path / "own" / "rank-00000.safetensors"
    file.parent.mkdir()
    places = [["callbacks", "counter", "tensor"], ["dataloader"]]
    own = [[places[0], {"$tensor": "callbacks.counter.tensor"}], [places[1], {"position": 5}]]
    metadata = {"state": json.dumps({"differing": places, "own": own})}
    safetensors.torch.save_file({"callbacks.counter.tensor": torch.tensor([7, 8])}, file, metadata)
    document = json.loads((path / "state.json").read_text())
    del document["state"]["dataloader"], document["state"]["callbacks"]["counter"]["tensor"]
    entry = StoredFile(size=file.stat().st_size, crc32=checksum(file))
    document["files"]["own/rank-00000.safetensors"] = entry.model_dump()
    sign(path, json.dumps(document).encode())
    run = toy_run(tmp_path)
    run.load(path)
    assert run.loader.position == 5
    assert run.callbacks.callbacks["counter"].state["tensor"].tolist() == [7, 8]
