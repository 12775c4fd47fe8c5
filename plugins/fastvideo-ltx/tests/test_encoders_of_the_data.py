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
from fastvideo_ltx.encoder import build_encoder
from fastvideo_testing.runs import toy_world

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with toy_world():
        yield


def write_data(folder: Path, encoder: dict[str, str] | None, *, sound: bool) -> None:
    row: dict[str, Any] = {"id": "s0", "caption": "a cat", "file_name": "0.mp4", "fps": 24.0}
    row |= encode_tensor("vae_latent", torch.zeros(128, 2, 2, 3)) | encode_tensor("text_embedding", torch.zeros(3, 32))
    if sound:
        row |= encode_tensor("audio_latent", torch.zeros(8, 9, 16))
    metadata = None
    if encoder is not None:  # as preprocessing here writes it
        settings = json.dumps({"encoder": encoder})
        metadata = {"fastvideo.settings": settings, "fastvideo.latents_normalised": encoder["latents_normalised"]}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row]).replace_schema_metadata(metadata), folder / "part.parquet")


def write_run(model: str, **pipeline_config: Any) -> str:
    run = {
        "recipe": {"family": "ltx", "method": "toy"},
        "roles": {"student": {"path": model, "trainable": True}, "teacher": {"path": model, "trainable": False}},
        "training": {"output_dir": "out", "data_path": "data", "max_train_steps": 1, "train_batch_size": 1},
        "pipeline_config": pipeline_config,
    }
    Path("run.yaml").write_text(yaml.safe_dump(run))
    return "run.yaml"


def with_other(tiny: str, component: str, out: Path) -> str:
    """The pipeline with one component's weights a little different."""
    shutil.copytree(tiny, out)
    for file in (out / component).glob("*.safetensors"):
        save_file({name: value * 1.5 + 0.5 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return str(out)


GENERATIONS = {
    "tiny": [("vae", "vae"), ("text_encoder", "text_encoder")],
    "tiny_ltx2": [
        ("vae", "vae"),
        ("audio_vae", "audio_vae"),
        ("text_encoder", "text_encoder"),
        ("connectors", "text_projection"),
    ],
}


@pytest.mark.parametrize(
    ("model", "component", "named"), [(model, *case) for model, cases in GENERATIONS.items() for case in cases]
)
def test_one_other_encoder_is_named(request, tmp_path, capsys, model, component, named):
    path = request.getfixturevalue(model)
    write_data(Path("data"), build_encoder(path, CPU).describe(), sound=model == "tiny_ltx2")
    assert main(["check", write_run(path)]) == 0
    assert "warning" not in capsys.readouterr().out
    run = write_run(with_other(path, component, tmp_path / "other"))
    assert main(["check", run]) == 2
    error = capsys.readouterr().err
    assert f"training.data_path (data), as data/part.parquet says: {named} " in error
    assert f"but roles.student.path ({tmp_path / 'other'}) has " in error
    assert error.count(" made it") == 1


def test_training_refuses_it_too_and_writes_nothing(tiny_ltx2, tmp_path, capsys):
    write_data(Path("data"), build_encoder(tiny_ltx2, CPU).describe(), sound=True)
    assert main([write_run(with_other(tiny_ltx2, "connectors", tmp_path / "other"))]) == 2
    assert "text_projection" in capsys.readouterr().err
    assert {path.name for path in Path("out").glob("*")} <= {".run.lock"}


def test_a_network_of_its_own_on_the_same_encoders_trains(tiny_ltx2, tmp_path):
    write_data(Path("data"), build_encoder(tiny_ltx2, CPU).describe(), sound=True)
    assert main(["check", write_run(with_other(tiny_ltx2, "transformer", tmp_path / "other"))]) == 0


def test_the_sound_s_encoder_does_not_matter_to_a_run_on_video_alone(tiny_ltx2, tmp_path):
    write_data(Path("data"), build_encoder(tiny_ltx2, CPU).describe(), sound=True)
    assert main(["check", write_run(with_other(tiny_ltx2, "audio_vae", tmp_path / "other"), streams=["video"])]) == 0


def test_other_conventions_of_the_same_text_encoder_are_another_encoding(tiny, tiny_condition, capsys):
    write_data(Path("data"), build_encoder(tiny, CPU).describe(), sound=False)
    assert main(["check", write_run(tiny_condition)]) == 2
    assert "text_length 128 made it, but" in capsys.readouterr().err


def test_data_of_other_programs_is_taken_with_a_warning(tiny, capsys):
    write_data(Path("data"), None, sound=False)
    assert main(["check", write_run(tiny)]) == 0
    assert "warning: data/part.parquet does not say which encoders made it" in capsys.readouterr().out


# --- clips with sound and without ------------------------------------------------------------------------------------------


@pytest.fixture
def mixed_data(tiny_ltx2) -> None:
    encoder = build_encoder(tiny_ltx2, CPU).describe()
    write_data(Path("data/with_sound"), encoder, sound=True)
    write_data(Path("data/without_sound"), encoder, sound=False)


def test_a_run_on_video_alone_takes_clips_with_sound_and_without(tiny_ltx2, mixed_data, capsys):
    run = write_run(tiny_ltx2, streams=["video"])
    assert main(["check", run]) == 0
    assert "2 samples in data (text_embedding, vae_latent)" in capsys.readouterr().out
    assert main([run]) == 0


@pytest.mark.parametrize("arguments", [("check",), ()], ids=["check", "train"])
def test_a_run_with_sound_names_the_folders_to_choose_from_once(tiny_ltx2, mixed_data, capsys, arguments):
    assert main([*arguments, write_run(tiny_ltx2)]) == 2
    error = capsys.readouterr().err
    assert error.count("holds no tensor audio_latent, but other files do") == 1
    assert "fix: give one of their folders as the data: data/with_sound or data/without_sound" in error
