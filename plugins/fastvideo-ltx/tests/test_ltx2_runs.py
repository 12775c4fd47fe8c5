"""LTX-2 with every method through the real commands: train, go on, sample, export; with sound and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from ltx2_pipeline import generate, open_pipeline
from safetensors.torch import load_file

from fastvideo_core.cli.main import main
from fastvideo_data.schema import encode_tensor
from fastvideo_data.video_files import probe
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import build_sampler

pytest.importorskip("fastvideo_finetune", reason="runs of every method: beside core alone there is none")
pytest.importorskip("fastvideo_dmd2", reason="runs of every method: beside core alone there is none")

HEIGHT, WIDTH, FRAMES, FPS = 64, 96, 9, 24.0
SIZE = ("--height", HEIGHT, "--width", WIDTH, "--num-frames", FRAMES)
STREAMS = [["video"], ["video", "audio"]]
METHODS: dict[str, dict[str, Any]] = {
    "finetune": {"roles": {"student": True}, "method_config": {}},
    "dmd2": {
        "roles": {"student": True, "teacher": False, "critic": True},
        "method_config": {
            "rollout_mode": "simulate",
            "dmd_denoising_steps": [999, 500, 0],
            "generator_update_interval": 1,
            "real_score_guidance_scale": 2.0,
        },
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips with sound, as preprocess stores them."""
    out = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(4):
        row: dict[str, Any] = {"id": f"s{number}", "caption": f"clip {number}", "media_type": "video"}
        row |= {"file_name": f"{number}.mp4", "width": WIDTH, "height": HEIGHT, "num_frames": 2}
        row |= {"duration_sec": FRAMES / FPS, "fps": FPS, "audio_sample_rate": 16000}
        row |= encode_tensor("vae_latent", torch.randn(128, 2, 2, 3, generator=generator))
        row |= encode_tensor("audio_latent", torch.randn(8, 9, 16, generator=generator))
        row |= encode_tensor("text_embedding", torch.randn(3 + number, 32, generator=generator))
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), out / "part.parquet")
    return out


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> None:
        assert main([str(argument) for argument in arguments]) == 0

    return run


def write_run(
    path: Path, tiny: str, data: Path, *, method: str, streams: list[str], steps: int, **training: Any
) -> Path:
    run = {
        "recipe": {"family": "ltx", "method": method},
        "roles": {name: {"path": tiny, "trainable": trained} for name, trained in METHODS[method]["roles"].items()},
        "training": {
            "seed": 0,
            "output_dir": str(path.parent / path.stem),
            "data_path": str(data),
            "max_train_steps": steps,
            "train_batch_size": 2,
            "dataloader_num_workers": 0,
            "num_gpus": 1,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "training_state_checkpointing_steps": 1,
            **training,
        },
        "pipeline_config": {"streams": streams, "first_frame_probability": 0.5},
        "method_config": METHODS[method]["method_config"],
    }
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


def transformer_weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "transformer" / "diffusion_pytorch_model.safetensors")


def is_sound(name: str) -> bool:
    return any(word in name for word in ("audio", "av_cross", "a2v_cross"))


@pytest.mark.parametrize("streams", STREAMS, ids="+".join)
@pytest.mark.parametrize("method", METHODS)
def test_train_sample_export(distill, tiny_ltx2, data, tmp_path, method, streams):
    distill(write_run(tmp_path / "run.yaml", tiny_ltx2, data, method=method, streams=streams, steps=2))

    # the streams that were trained moved, the others are the same to the bit
    distill("export", tmp_path / "run", tmp_path / "exported")
    before, after = transformer_weights(tiny_ltx2), transformer_weights(tmp_path / "exported")
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    if streams == ["video"]:
        assert same == {name for name in before if is_sound(name)}
    else:
        assert not {name for name in same if not name.endswith("bias")}

    # the video has a sound track of its own length, or none
    steps = () if method == "dmd2" else ("--steps", 2)
    distill("sample", tmp_path / "run", "--prompt", "a cat", *SIZE, *steps, "--out", tmp_path / "videos")
    info = probe(tmp_path / "videos" / "00.mp4")
    assert (info.frames, info.width, info.height, info.fps) == (FRAMES, WIDTH, HEIGHT, FPS)
    assert info.has_audio == ("audio" in streams)
    if info.has_audio:
        import av

        with av.open(str(tmp_path / "videos" / "00.mp4")) as container:
            sound = container.streams.audio[0]
            assert float(sound.duration * sound.time_base) == pytest.approx(FRAMES / FPS, abs=0.03)

    # plain LTX2Pipeline loads the export and makes the same video
    pipeline = open_pipeline(str(tmp_path / "exported"))
    frames, sound = generate(pipeline, steps=2, output_type="np")
    from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest

    sampler = build_sampler(str(tmp_path / "exported"), LtxConfig(), device=torch.device("cpu"))
    timesteps = (1000.0, 500.0) if method == "dmd2" else None
    request = ValidationRequest(
        sampler.handle, tmp_path, sampling_timesteps=timesteps, sampling_steps=None if timesteps else 2
    )
    prompt = ValidationPrompt("a cat", height=HEIGHT, width=WIDTH, num_frames=FRAMES)
    ours = sampler.sample(request, prompt, torch.Generator().manual_seed(3))
    assert np.abs(ours.frames.numpy().astype(int) - (frames[0] * 255).round()).max() <= 1
    torch.testing.assert_close(ours.audio[:, : sound.shape[-1]], sound[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("method", "streams"), [("finetune", ["video"]), ("dmd2", ["video", "audio"])], ids=["finetune", "dmd2"]
)
def test_going_on_is_as_never_having_stopped(distill, tiny_ltx2, data, tmp_path, method, streams):
    settings = {"method": method, "streams": streams}
    distill(write_run(tmp_path / "whole.yaml", tiny_ltx2, data, steps=3, **settings))
    distill(write_run(tmp_path / "parts.yaml", tiny_ltx2, data, steps=1, **settings))
    distill(write_run(tmp_path / "parts.yaml", tiny_ltx2, data, steps=3, **settings), "--resume", "latest")
    for run in ("whole", "parts"):
        distill("export", tmp_path / run, tmp_path / f"{run}-exported")
    whole, parts = (transformer_weights(tmp_path / f"{run}-exported") for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.distributed
def test_video_alone_leaves_the_sound_s_parameters_on_two_processes_too(distill, tiny_ltx2, data, tmp_path):
    settings = {"method": "finetune", "streams": ["video"], "steps": 2, "num_gpus": 2}
    run = write_run(tmp_path / "run.yaml", tiny_ltx2, data, **settings)
    done = subprocess.run(
        [sys.executable, "-m", "fastvideo_core", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    distill("export", tmp_path / "run", tmp_path / "exported")
    before, after = transformer_weights(tiny_ltx2), transformer_weights(tmp_path / "exported")
    assert {name for name in before if torch.equal(before[name], after[name])} == set(filter(is_sound, before))


def test_data_without_sound_trains_on_video_alone(distill, tiny_ltx2, data, tmp_path, capsys):
    rows = pq.read_table(data / "part.parquet").to_pylist()
    silent = [{name: value for name, value in row.items() if not name.startswith("audio")} for row in rows]
    (tmp_path / "silent").mkdir()
    pq.write_table(pa.Table.from_pylist(silent), tmp_path / "silent" / "part.parquet")
    settings = {"method": "finetune", "steps": 1}
    distill(write_run(tmp_path / "a.yaml", tiny_ltx2, tmp_path / "silent", streams=["video"], **settings))
    run = write_run(tmp_path / "b.yaml", tiny_ltx2, tmp_path / "silent", streams=["video", "audio"], **settings)
    assert main(["check", str(run)]) == 2
    error = capsys.readouterr().err
    assert "sample s0: the data holds no audio_latent" in error
    assert "set pipeline_config.streams: [video]" in error
