"""Which of a folder's safetensors files count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.safetensors_weights import SafetensorsWeights, check_fit


def store(folder: Path, name: str, dtype: torch.dtype, *, indexed: bool) -> None:
    file = f"{name}-00001-of-00001.safetensors" if indexed else f"{name}.safetensors"
    save_file({"weight": torch.full((2,), 1 / 3, dtype=dtype)}, folder / file)
    if indexed:
        (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": file}}))


def read(folder: Path) -> torch.dtype:
    return SafetensorsWeights({"net": folder}, where="here").read("net", "weight").dtype


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("variant_indexed", [True, False])
@pytest.mark.parametrize("variant", ["fp16", "z"])
def test_a_variant_beside_the_weights_is_not_read(tmp_path, variant, variant_indexed, indexed):
    store(tmp_path, "model", torch.float32, indexed=indexed)
    store(tmp_path, f"model.{variant}", torch.float16, indexed=variant_indexed)
    assert read(tmp_path) is torch.float32


@pytest.mark.parametrize("indexed", [True, False])
def test_a_variant_alone_is_read(tmp_path, indexed):
    store(tmp_path, "model.fp16", torch.float16, indexed=indexed)
    assert read(tmp_path) is torch.float16


def test_names_and_shapes_are_compared_by_headers_alone(tmp_path):
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    stored = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(5), "2.weight": torch.ones(1)}
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError) as error:
        check_fit(network, tmp_path, where="here")
    said = str(error.value)
    assert "1 mismatched tensors: 0.bias ([5] stored, [3] by config.json)" in said
    assert "2 missing tensors: 1.bias, 1.weight" in said
    assert "1 unexpected tensors: 2.weight" in said
    with pytest.raises(ConfigError) as error:
        check_fit(network, tmp_path, where="here", whole=False)
    assert "missing" not in str(error.value)
    network._keys_to_ignore_on_load_unexpected = [r"^2\."]
    save_file(
        dict(network.to_empty(device="cpu").state_dict()) | {"2.x": torch.ones(1)}, tmp_path / "model.safetensors"
    )
    check_fit(network, tmp_path, where="here")


# --- in shards ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    """A network, and its weights in two shards with an index."""
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 2))
    state = network.state_dict()
    names = sorted(state)
    for shard, part in (("a.safetensors", names[:3]), ("b.safetensors", names[3:])):
        save_file({name: state[name].contiguous() for name in part}, tmp_path / shard)
    shards = {name: "a.safetensors" if name in names[:3] else "b.safetensors" for name in names}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return network, tmp_path


def test_rows_are_those_of_the_whole_tensor(sharded):
    network, folder = sharded
    source = SafetensorsWeights({"net": folder}, where="x")
    assert sorted(source.tensor_names("net")) == sorted(network.state_dict())
    weight = network[0].weight
    assert torch.equal(source.read("net", "0.weight", slice(2, 5)), weight[2:5])
    assert source.read("net", "0.weight", slice(8, 8)).shape == (0, 4)


def test_damaged_or_missing_files_are_clear_errors(sharded, tmp_path):
    with pytest.raises(ConfigError, match="holds no safetensors file"):
        SafetensorsWeights({"net": tmp_path / "nothing"}, where="roles.student.path")
    _, folder = sharded
    source = SafetensorsWeights({"net": folder}, where="roles.student.path")
    (folder / "b.safetensors").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"roles\.student\.path .*b\.safetensors\): is no valid weights file: "):
        source.read("net", sorted(source.tensor_names("net"))[-1])
    (folder / "x.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.safetensors\.index\.json"):
        SafetensorsWeights({"net": folder}, where="x")
