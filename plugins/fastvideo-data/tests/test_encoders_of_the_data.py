"""The encoders that made the data against those of the run's own pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from knowing_family import Knowing, KnowingConfig

from fastvideo_core import register_model
from fastvideo_core.cli.main import main
from fastvideo_testing.runs import toy_world


@pytest.fixture(autouse=True)
def world():
    with toy_world():
        register_model("knowing", config=KnowingConfig)(Knowing)
        yield


def write_data(folder: Path, *encoders: dict[str, str] | None) -> None:
    """One file per description."""
    folder.mkdir()
    row: dict[str, Any] = {"id": "s0", "caption": "a cat"}
    for name in ("vae_latent", "text_embedding"):
        array = np.zeros((2, 2), np.float32)
        row |= {f"{name}_bytes": array.tobytes(), f"{name}_shape": [2, 2], f"{name}_dtype": "float32"}
    for number, encoder in enumerate(encoders):
        metadata = None if encoder is None else {"fastvideo.settings": json.dumps({"encoder": encoder})}
        table = pa.Table.from_pylist([row]).replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"part-{number}.parquet")


def write_run(folder: Path, **pipeline_config: Any) -> str:
    run = {
        "recipe": {"family": "knowing", "method": "toy"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "training": {"output_dir": "out", "data_path": "data", "max_train_steps": 1, "train_batch_size": 2},
        "pipeline_config": pipeline_config,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return "run.yaml"


SAME = {"text_encoder": "t1", "vae": "v1", "text_dtype": "bfloat16"}
OTHER = {**SAME, "text_encoder": "t2"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_data_of_another_text_encoder_is_refused(folder, capsys, arguments):
    write_data(folder / "data", SAME, OTHER)
    assert main([*arguments, write_run(folder)]) == 2
    error = capsys.readouterr().err
    assert "training.data_path (data), as data/part-1.parquet says: text_encoder t2 made it, but " in error
    assert "roles.student.path (toy/student) has t1\n" in error
    assert "fix: preprocess it again with --model toy/student, or train the pipeline that it was made with" in error
    assert "vae" not in error
    assert "several things" not in error
    assert {path.name for path in (folder / "out").glob("*")} <= {".run.lock"}


def test_the_encoders_of_each_source_are_compared_and_the_source_is_named(folder, capsys):
    write_data(folder / "data", SAME)
    write_data(folder / "more", OTHER)
    run = yaml.safe_load((folder / write_run(folder)).read_text())
    run["training"]["data_path"] = [{"path": "data"}, {"path": "more", "weight": 2}]
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["check", "run.yaml"]) == 2
    error = capsys.readouterr().err
    assert "training.data_path[1].path (more), as more/part-0.parquet says: text_encoder t2 made it, but " in error
    assert "data/part-0.parquet" not in error


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_data_of_the_same_encoders_trains_in_silence(folder, capsys, caplog, arguments):
    write_data(folder / "data", SAME)
    assert main([*arguments, write_run(folder)]) == 0
    assert "which encoders" not in capsys.readouterr().out + caplog.text


@pytest.mark.parametrize("made_by", [None, {"model": "of another program"}])
@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_data_that_does_not_tell_is_taken_with_a_warning(folder, capsys, caplog, arguments, made_by):
    write_data(folder / "data", made_by)
    assert main([*arguments, write_run(folder)]) == 0
    said = capsys.readouterr().out if arguments else caplog.text
    assert (
        "data/part-0.parquet does not say which encoders made it: training takes them to be those of roles.student"
        in (said)
    )


def test_encoders_that_are_not_here_are_compared_by_training_only(folder, capsys):
    write_data(folder / "data", OTHER)
    run = write_run(folder, here=False)
    assert main(["check", run]) == 0
    assert "warning: the pipeline's encoders are not on this machine yet" in capsys.readouterr().out
    assert main([run]) == 2
    assert "text_encoder t2 made it" in capsys.readouterr().err


def test_a_damaged_description_is_the_data_s_error(folder, capsys):
    write_data(folder / "data", SAME)
    table = pq.read_table(folder / "data" / "part-0.parquet")
    pq.write_table(table.replace_schema_metadata({"fastvideo.settings": "{"}), folder / "data" / "part-0.parquet")
    assert main(["check", write_run(folder)]) == 2
    assert "data/part-0.parquet: fastvideo.settings in its footer cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_data_whose_normalisation_is_unknown_is_told(folder, capsys, caplog, arguments):
    write_data(folder / "data", SAME)
    assert main([*arguments, write_run(folder)]) == 0
    said = capsys.readouterr().out + caplog.text
    assert "part-0.parquet does not say whether its latents are normalised" in said
    assert "(vae_latent un-normalised)" in said
    assert said.count("does not say whether its latents") == 1
