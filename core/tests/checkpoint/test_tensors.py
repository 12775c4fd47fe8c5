from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from fastvideo_core.checkpoint.checksums import checksum, write_summed
from fastvideo_core.checkpoint.tensors import read_index, read_tensors, write_tensors
from fastvideo_core.errors import CheckpointError

from .toy_run import assert_same

TENSORS = {
    "bf16": torch.randn(4, 3).bfloat16(),
    "scalar": torch.tensor(3.25),
    "empty": torch.zeros(0, 2),
    "strided": torch.randn(6, 4).t()[1:],
    "bytes": torch.arange(7, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "big": torch.tensor(2**60),
    "a key / with.signs": torch.ones(1, dtype=torch.float64),
}


def test_tensors_of_every_kind_come_back_bitwise(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    targets = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    read_tensors(tmp_path / "state", targets)
    assert_same(targets, TENSORS)


def test_the_index_tells_size_and_dtype(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    index = read_index(tmp_path / "state")
    assert set(index) == set(TENSORS)
    assert (index["bf16"].size, index["bf16"].properties.dtype) == (torch.Size([4, 3]), torch.bfloat16)


def test_no_path_of_this_machine_is_stored(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    assert str(tmp_path).encode() not in (tmp_path / "state" / ".metadata").read_bytes()


class Evil:
    def __init__(self, flag: str) -> None:
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (self.flag,)


@pytest.mark.parametrize("read", [read_index, lambda folder: read_tensors(folder, {"scalar": torch.zeros(())})])
def test_an_index_that_would_run_code_is_refused(tmp_path, read):
    write_tensors(tmp_path / "state", TENSORS)
    flag = tmp_path / "pwned"
    write_summed(tmp_path / "state" / ".metadata", pickle.dumps({"x": Evil(str(flag))}))
    with pytest.raises(CheckpointError, match=r"not the index of a checkpoint: it names (posix|nt)\.mkdir") as error:
        read(tmp_path / "state")
    assert "damaged, or made to run code" in str(error.value)
    assert not flag.exists()


@pytest.mark.parametrize(
    "name", ["torch load", "torch.serialization load", "builtins eval", "torch.distributed.checkpoint.metadata os"]
)
def test_only_the_classes_of_an_index_are_known(tmp_path, name):
    module, attribute = name.split()
    (tmp_path / ".metadata").write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(CheckpointError, match=rf"it names {module}\.{attribute}, which no such index contains"):
        read_index(tmp_path)


def test_an_index_that_points_outside_of_its_folder_is_refused(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    path = tmp_path / "state" / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    next(iter(metadata.storage_data.values())).relative_path = "../other.distcp"
    write_summed(path, pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="refers to a file outside of its folder"):
        read_index(tmp_path / "state")


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps({"a": 1})])
def test_a_damaged_index_is_a_clear_error(tmp_path, content):
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match="this is not the index of a checkpoint"):
        read_index(tmp_path)


def test_a_missing_shard_is_a_clear_error(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    (tmp_path / "state" / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match="the stored tensors cannot be read: FileNotFoundError"):
        read_tensors(tmp_path / "state", {"scalar": torch.zeros(())})


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1001])
def test_a_checksum_changes_with_every_bit(size):
    data = np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8).copy()
    before = checksum(data)
    half = size // 2
    assert checksum(data[half:], checksum(data[:half])) == before
    for bit in range(8 * size):
        data[bit // 8] ^= 1 << bit % 8
        assert checksum(data) != before
        data[bit // 8] ^= 1 << bit % 8


def test_a_flipped_bit_is_an_error_that_names_file_and_tensor(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    path = tmp_path / "state" / "__0_0.distcp"
    content = bytearray(path.read_bytes())
    at = bytes(content).index(torch.tensor(2**60).numpy().tobytes())
    content[at] ^= 4
    path.write_bytes(content)
    targets = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    with pytest.raises(CheckpointError) as error:
        read_tensors(tmp_path / "state", targets)
    assert "__0_0.distcp was changed since it was written: the bytes of 'big' differ" in str(error.value)
    assert "use another checkpoint; this one is damaged" in str(error.value)


def test_tensors_that_were_written_without_sums_are_read(tmp_path):
    write_tensors(tmp_path / "state", TENSORS)
    (tmp_path / "state" / "__0_0.distcp.sums").unlink()
    targets = {key: torch.zeros_like(value) for key, value in TENSORS.items()}
    read_tensors(tmp_path / "state", targets)
    assert_same(targets, TENSORS)
