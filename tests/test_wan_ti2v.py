"""Wan 2.2 TI2V-5B through the commands: first frames are given in training, and images in sampling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from diffusers import WanImageToVideoPipeline

from fastvideo_core.cli.main import main
from fastvideo_data.video_files import probe, read_frames
from tests.families import Kind, TinyFamily, write_tiny_family
from tests.methods import ON_CLIPS, sections
from tests.test_docs import example
from tests.test_memory_estimate import Profiled, built, estimated, within

KIND = Kind("wan", {"variant": "ti2v"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyFamily:
    return write_tiny_family(KIND, tmp_path_factory.mktemp("ti2v"))


def run_of(tiny: TinyFamily, out: Path, method: str, **options: Any) -> dict[str, Any]:
    run = sections(method, lambda role: str(tiny.base), **options)
    run["pipeline_config"] |= {"first_frame_probability": 1.0}
    training = {"output_dir": str(out), "data_path": str(tiny.data), "max_train_steps": 4, "learning_rate": 1e-3}
    return {"recipe": {"family": "wan", "method": method}, **run, "training": training}


def start(run: dict[str, Any], folder: Path, *arguments: str) -> int:
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    return main([*arguments, str(folder / "run.yaml")])


def test_the_run_of_the_docs_trains_exports_and_samples_with_an_image(tiny, tmp_path):
    run = yaml.safe_load(example("docs/wan.md", "ti2v.yaml"))
    run["roles"]["student"]["path"] = str(tiny.base)
    run["training"] |= run_of(tiny, tmp_path / "out", "finetune")["training"] | {"num_gpus": 1}
    image = tmp_path / "first.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(image)
    prompt = {"caption": "a cat", "image_path": image.name, "height": 32, "width": 64, "num_frames": 5}
    (tmp_path / "prompts.json").write_text(json.dumps({"data": [prompt]}), encoding="utf-8")
    run["training"] |= {"log_validation": True, "validation_dataset_file": str(tmp_path / "prompts.json")}
    run["training"] |= {"validation_steps": 4, "validation_sampling_steps": "2", "validation_guidance_scale": "3.0"}
    assert start(run, tmp_path) == 0
    (shown,) = (tmp_path / "out" / "validation").rglob("*.mp4")
    assert read_frames(shown).shape == (5, 32, 64, 3)
    size = ["--height", "32", "--width", "64", "--num-frames", "5", "--steps", "2", "--image", str(image)]
    assert main(["sample", str(tmp_path / "out"), "--prompt", "a cat", *size, "--out", str(tmp_path / "videos")]) == 0
    assert probe(tmp_path / "videos" / "00.mp4").fps == 24
    assert read_frames(tmp_path / "videos" / "00.mp4").shape == (5, 32, 64, 3)
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "model")]) == 0
    assert WanImageToVideoPipeline.from_pretrained(tmp_path / "model").config.expand_timesteps


def test_the_peak_is_what_the_allocator_sees_where_every_token_has_a_noise_level(tiny, tmp_path):
    run = run_of(tiny, tmp_path / "run", "finetune")
    run["callbacks"] = {}
    estimate = estimated(tmp_path, run)
    runtime = built(tmp_path, run)
    watched = Profiled(runtime.dataloader)
    replace(runtime, dataloader=watched).train()
    state = sum(role.state for role in estimate.roles.values())
    assert within(estimate.peak, state + watched.peak), f"{estimate.peak} of {state + watched.peak}"


def test_what_cannot_be_meant_is_told_before_weights_are_loaded(tiny, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["tiny", "wan", str(other)]) == 0
    run = run_of(tiny, tmp_path / "out", "dmd2")
    run["roles"]["teacher"]["path"] = str(other)
    assert start(run, tmp_path, "check") == 2
    assert "spatial factor" in capsys.readouterr().err
    run = run_of(tiny, tmp_path / "out", "dmd2")
    run["training"] |= {"num_height": 48, "num_width": 64, "num_frames": 5}
    assert start(run, tmp_path, "check") == 2
    assert "multiples of 32" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", [*ON_CLIPS])
def test_every_method_on_clips_trains_with_given_first_frames(tiny, tmp_path, method):
    """Without a method's knowing; rollouts from noise take the given frame from the data."""
    assert start(run_of(tiny, tmp_path / "out", method), tmp_path) == 0
