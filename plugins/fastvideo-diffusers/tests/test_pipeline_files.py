"""Whether a pipeline's folder is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.pipeline_files import check_files, check_undamaged, has_weights
from fastvideo_diffusers.safetensors_weights import SafetensorsWeights

COMPONENTS = ("transformer", "scheduler")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline of two components, the transformer in two shards."""
    for name in COMPONENTS:
        (tmp_path / name).mkdir()
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    for tensor, file in shards.items():
        save_file({tensor: torch.zeros(2)}, tmp_path / "transformer" / file)
    (tmp_path / "transformer" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    return tmp_path


def test_a_whole_folder_has_nothing_wrong(folder):
    check_files(folder, COMPONENTS, ["transformer"], where="here")
    check_undamaged(str(folder), COMPONENTS, where="here")
    assert has_weights(folder / "transformer", where="here")


def test_what_a_mac_puts_beside_the_files_is_none_of_the_pipeline(folder):
    for name in ("._model-1.safetensors", "._model.safetensors.index.json", "._config.json"):
        (folder / "transformer" / name).write_bytes(b"\0\xff")
    test_a_whole_folder_has_nothing_wrong(folder)
    weights = SafetensorsWeights({"": folder / "transformer"}, where="here")
    assert torch.equal(weights.read("", "b"), torch.zeros(2))


def test_a_missing_shard_is_named_and_counts_as_no_weights(folder):
    (folder / "transformer" / "model-2.safetensors").unlink()
    assert not has_weights(folder / "transformer", where="here")
    with pytest.raises(
        ConfigError, match=r"here: transformer/model-2\.safetensors is missing, which model\.safetensors"
    ):
        check_files(folder, COMPONENTS, ["transformer"], where="here")


def test_missing_folders_and_weights_are_told_together(folder):
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "scheduler").rmdir()
    for file in (folder / "transformer").iterdir():
        file.unlink()
    assert not has_weights(folder / "transformer", where="here")
    assert not has_weights(folder / "absent", where="here")
    with pytest.raises(ConfigError) as error:
        check_files(folder, COMPONENTS, ["transformer"], where="here")
    assert "has no subfolder scheduler/" in str(error.value)
    assert "transformer/ holds no safetensors file" in str(error.value)


def test_every_damaged_file_is_named(folder):
    (folder / "transformer" / "model-1.safetensors").write_bytes(b"cut off")
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(ConfigError) as error:
        check_undamaged(str(folder), COMPONENTS, where="here")
    assert "transformer/model-1.safetensors: is no valid safetensors file" in str(error.value)
    assert "scheduler/scheduler_config.json: is no valid JSON" in str(error.value)
    assert "download or copy the pipeline again" in str(error.value)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/x.safetensors", "x/y.safetensors", "x" * 256, ".", ""])
def test_an_index_that_names_files_elsewhere_is_damaged(folder, shard):
    (folder / "transformer" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    said = (
        r"transformer/model\.safetensors\.index\.json: names .* as a file of weights\n.*plain names of files beside it"
    )
    with pytest.raises(ConfigError, match=said):
        check_files(folder, COMPONENTS, ["transformer"], where="here")
    with pytest.raises(ConfigError, match=said):
        SafetensorsWeights({"": folder / "transformer"}, where="here")


def test_an_index_without_a_weight_map_is_damaged(folder):
    (folder / "transformer" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no weight_map"):
        has_weights(folder / "transformer", where="here")


@pytest.mark.parametrize("content", ["null", "[]", '"x"', "1"])
def test_json_that_is_no_object_is_damaged(folder, content):
    (folder / "scheduler" / "scheduler_config.json").write_text(content)
    for check in (check_undamaged, lambda path, parts, where: check_files(Path(path), parts, (), where=where)):
        with pytest.raises(ConfigError, match=r"scheduler/scheduler_config\.json: holds no JSON object"):
            check(str(folder), COMPONENTS, where="here")


@pytest.mark.parametrize("config", [{"num_layers": 10**9}, {"text_config": {"num_hidden_layers": 2000}}])
def test_a_count_that_would_never_be_built_is_refused(folder, config):
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"transformer/config\.json: num_.*layers is \d+\n    allowed: 1000 or less"):
        check_files(folder, COMPONENTS, ["transformer"], where="here")
