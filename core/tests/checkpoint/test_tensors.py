from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

import pytest
import safetensors.torch
import torch

from fastvideo_core.checkpoint.storage import checksum
from fastvideo_core.checkpoint.tensors import StoredTensors, write_tensors
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError

from .toy_run import assert_same

TENSORS = {
    "roles.bf16": torch.randn(4, 3).bfloat16(),
    "roles.float8": torch.randn(4).to(torch.float8_e4m3fn).view(torch.uint8),
    "roles.scalar": torch.tensor(3.25),
    "roles.empty": torch.zeros(0, 2),
    "roles.strided": torch.randn(6, 4).t()[1:],
    "method.bytes": torch.arange(7, dtype=torch.uint8),
    "method.bool": torch.tensor([True, False]),
    "method.big": torch.tensor(2**60),
    "method.a key / with.signs": torch.ones(1, dtype=torch.float64),
}
TIED = torch.randn(3, 2)


def test_tensors_of_every_kind_come_back_bitwise(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    targets = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    StoredTensors(tmp_path / "state").read(targets)
    assert_same(targets, TENSORS)


def test_tied_tensors_and_views_of_one_memory_come_back(tmp_path):
    tensors = {"roles.one": TIED, "roles.same": TIED, "roles.first": TIED[0], "roles.flat": TIED.view(-1)}
    write_tensors(tmp_path / "state", tensors)
    targets = {key: torch.zeros_like(value) for key, value in tensors.items()}
    StoredTensors(tmp_path / "state").read(targets)
    assert_same(targets, tensors)


def test_the_index_tells_size_dtype_and_file(tmp_path):
    files = write_tensors(tmp_path / "state", TENSORS)
    stored = StoredTensors(tmp_path / "state")
    assert set(stored.index) == set(TENSORS)
    entry = stored.index["roles.bf16"]
    assert (entry.size, entry.properties.dtype) == (torch.Size([4, 3]), torch.bfloat16)
    assert [file.name for file in files] == ["roles-rank-00000.safetensors", "method-rank-00000.safetensors"]
    assert stored.files(["roles.bf16", "roles.scalar"]) == ["roles-rank-00000.safetensors"]


def test_no_path_of_this_machine_is_stored(tmp_path):
    for file in write_tensors(tmp_path / "state", TENSORS):
        assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"{" * 4096])
def test_a_file_that_is_none_of_safetensors_is_a_clear_error(tmp_path, content):
    write_tensors(tmp_path / "state", TENSORS)
    (tmp_path / "state" / "roles-rank-00000.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(?s)state: .*use another checkpoint; this one is damaged"):
        StoredTensors(tmp_path / "state").read({"roles.scalar": torch.zeros(())})


@pytest.mark.parametrize("offsets", ["", "[", "{}", '{"roles.a": 3}', '{"roles.a": {"saved_offsets": ["x", {}]}}'])
def test_a_place_of_a_shard_that_cannot_be_is_a_clear_error(tmp_path, offsets):
    metadata = {"DCP_SHARDING_INFO": offsets} if offsets else None
    safetensors.torch.save_file({"roles.a": torch.ones(2, 2)}, tmp_path / "roles.safetensors", metadata)
    if not offsets:  # a plain file is one
        StoredTensors(tmp_path).read({"roles.a": torch.zeros(2, 2)})
        return
    with pytest.raises(CheckpointError, match="is no valid set of stored tensors"):
        StoredTensors(tmp_path).read({"roles.a": torch.zeros(2, 2)})


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    write_tensors(tmp_path / "state", TENSORS)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    targets = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    StoredTensors(tmp_path / "state").read(targets)


def test_the_main_process_alone_opens_the_files_for_the_index(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("opened")

    def told(damage: bytes | None = None) -> Any:
        """What the main process tells the others."""
        if damage is not None:
            (tmp_path / "state" / "roles-rank-00000.safetensors").write_bytes(damage)
        said = []
        with monkeypatch.context() as patch, suppress(CheckpointError):
            patch.setattr(context, "from_main", lambda value: said.append(pickle.dumps(value)) or value)
            StoredTensors(tmp_path / "state", together=True)
        return pickle.loads(said[0])

    write_tensors(tmp_path / "state", TENSORS)
    alone = StoredTensors(tmp_path / "state").index
    whole, damaged = told(), told(b"rubbish")
    monkeypatch.setattr(safetensors, "safe_open", refuse)
    monkeypatch.setattr(context, "is_main_process", lambda: False)
    monkeypatch.setattr(context, "from_main", lambda value: whole)
    assert StoredTensors(tmp_path / "state", together=True).index == alone
    monkeypatch.setattr(context, "from_main", lambda value: damaged)
    with pytest.raises(CheckpointError, match="this one is damaged"):
        StoredTensors(tmp_path / "state", together=True)


def test_a_missing_file_is_a_clear_error(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    (tmp_path / "state" / "roles-rank-00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)is no valid set of stored tensors.*roles\.scalar"):
        StoredTensors(tmp_path / "state").read({"roles.scalar": torch.zeros(())})


@pytest.mark.parametrize("size", [0, 1, 7, 1001, 2**20 + 3])
def test_a_checksum_changes_with_every_bit(tmp_path, size):
    file = tmp_path / "file"
    data = bytearray(range(256)) * (size // 256 + 1)
    file.write_bytes(data[:size])
    before = checksum(file)
    for bit in {0, 8 * size // 2, 8 * size - 1} if size else ():
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data[:size])
        assert checksum(file) != before
        data[bit // 8] ^= 1 << bit % 8
