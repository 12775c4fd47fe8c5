"""What counts as the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.fingerprint import fingerprint

WEIGHTS = {
    "block.weight": torch.randn(40, 8, generator=torch.Generator().manual_seed(0)),
    "block.bias": torch.arange(7.0),
    "scale": torch.tensor(3.0),
}


def stored(folder: Path, weights: dict[str, Tensor], name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: value.clone() for key, value in weights.items()}, folder / name)
    return folder


def of(folder: Path, **options) -> str:
    return fingerprint(folder, where="roles.student.path", **options)


def test_it_is_sixteen_digits(tmp_path):
    assert len(bytes.fromhex(of(stored(tmp_path / "a", WEIGHTS)))) == 8


def test_copies_under_other_names_in_other_files_or_in_bfloat16_are_the_same(tmp_path):
    own = of(stored(tmp_path / "a", WEIGHTS))
    assert of(stored(tmp_path / "b", {f"encoder.{name}": value for name, value in WEIGHTS.items()})) == own
    assert of(stored(tmp_path / "c", {name: value.bfloat16() for name, value in WEIGHTS.items()})) == own
    assert of(stored(tmp_path / "d", {**WEIGHTS, "tied.weight": WEIGHTS["block.weight"]})) == own
    shards = {"one.safetensors": ["block.weight"], "two.safetensors": ["block.bias", "scale"]}
    for file, names in shards.items():
        stored(tmp_path / "e", {name: WEIGHTS[name] for name in names}, file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (tmp_path / "e" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert of(tmp_path / "e") == own


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_another_value_in_any_tensor_is_another_encoder(tmp_path, name):
    own = of(stored(tmp_path / "a", WEIGHTS))
    assert of(stored(tmp_path / "b", {**WEIGHTS, name: WEIGHTS[name] * 1.1 + 0.1})) != own
    assert of(stored(tmp_path / "c", {key: value for key, value in WEIGHTS.items() if key != name})) != own


def test_only_wanted_tensors_count(tmp_path):
    part = {"wanted": lambda name: name.startswith("block")}
    own = of(stored(tmp_path / "a", WEIGHTS), **part)
    assert of(stored(tmp_path / "b", {**WEIGHTS, "scale": torch.tensor(4.0)}), **part) == own
    assert of(tmp_path / "a") != own


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"roles\.student\.path .*: holds no safetensors file"):
        of(tmp_path)
