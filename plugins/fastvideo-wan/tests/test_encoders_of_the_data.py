"""Data of other encoders than the run's own pipeline has is refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fastvideo_core.cli.main import main
from fastvideo_data.schema import encode_tensor
from fastvideo_testing.runs import toy_world
from fastvideo_wan.encoder import WanEncoder


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with toy_world():
        yield


def write_data(encoder: dict[str, str] | None) -> None:
    row: dict[str, Any] = {"id": "s0", "caption": "a cat"}
    row |= encode_tensor("vae_latent", torch.zeros(16, 2, 4, 4)) | encode_tensor("text_embedding", torch.zeros(3, 32))
    metadata = None if encoder is None else {"fastvideo.settings": json.dumps({"encoder": encoder})}
    Path("data").mkdir()
    pq.write_table(pa.Table.from_pylist([row]).replace_schema_metadata(metadata), "data/part.parquet")


def write_run(model: str) -> str:
    run = {
        "recipe": {"family": "wan", "method": "toy"},
        "roles": {"student": {"path": model, "trainable": True}, "teacher": {"path": model, "trainable": False}},
        "training": {"output_dir": "out", "data_path": "data", "max_train_steps": 1, "train_batch_size": 1},
    }
    Path("run.yaml").write_text(yaml.safe_dump(run))
    return "run.yaml"


def with_other(tiny: str, component: str, out: Path) -> str:
    """The pipeline with one component's weights a little different."""
    shutil.copytree(tiny, out)
    for file in (out / component).glob("*.safetensors"):
        save_file({name: value * 1.5 + 0.5 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return str(out)


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_another_encoder_is_named(tiny, tmp_path, capsys, component, arguments):
    write_data(WanEncoder(tiny, torch.device("cpu")).describe())
    assert main([*arguments, write_run(with_other(tiny, component, tmp_path / "other"))]) == 2
    error = capsys.readouterr().err
    assert f"training.data_path (data), as data/part.parquet says: {component} " in error
    assert f"but roles.student.path ({tmp_path / 'other'}) has " in error
    assert error.count(" made it") == 1
    assert {path.name for path in Path("out").glob("*")} <= {".run.lock"}


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_another_network_on_the_same_encoders_trains(tiny, tmp_path, capsys, arguments):
    write_data(WanEncoder(tiny, torch.device("cpu"), torch.bfloat16).describe())
    assert main([*arguments, write_run(with_other(tiny, "transformer", tmp_path / "other"))]) == 0
    assert "which encoders" not in capsys.readouterr().out


def test_data_of_other_programs_is_taken_with_a_warning(tiny, capsys):
    write_data(None)
    assert main(["check", write_run(tiny)]) == 0
    assert "warning: data/part.parquet does not say which encoders made it" in capsys.readouterr().out
