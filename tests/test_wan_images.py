"""Wan's image-to-video pipelines through the commands: from clips to a video of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.main import main
from tests.families import Kind, TinyFamily, write_tiny_family
from tests.methods import ALL, ON_TRAJECTORIES, sections
from tests.test_docs import example

SIZE = ("--height", "32", "--width", "48", "--num-frames", "5", "--steps", "2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Makes a variant with its data when it is first asked for."""
    made: dict[str, TinyFamily] = {}

    def make(variant: str) -> TinyFamily:
        if variant not in made:
            made[variant] = write_tiny_family(Kind("wan", {"variant": variant}), tmp_path_factory.mktemp(variant))
        return made[variant]

    return make


@pytest.fixture
def image(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def start(run: dict[str, Any], folder: Path, *arguments: str) -> int:
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    return main([*arguments, str(folder / "run.yaml")])


def run_of(tiny: TinyFamily, out: Path, method: str) -> dict[str, Any]:
    data = tiny.trajectories() if method in ON_TRAJECTORIES else tiny.data
    training = {"output_dir": str(out), "data_path": str(data), "max_train_steps": 4, "learning_rate": 1e-3}
    run = sections(method, lambda role: str(tiny.base))
    return {"recipe": {"family": "wan", "method": method}, **run, "training": training}


def test_the_run_of_the_page_trains_validates_exports_and_samples(tiny, image, tmp_path, capsys):
    """The run of docs/wan.md, over a tiny pipeline."""
    made = tiny("i2v")
    run = yaml.safe_load(example("docs/wan.md", "i2v.yaml"))
    run["roles"]["student"] |= {"path": str(made.base), "lora": {"rank": 2, "targets": ["to_q", "add_k_proj"]}}
    (tmp_path / "prompts.json").write_text(
        f'{{"data": [{{"caption": "a cat", "image_path": "{image}", "height": 32, "width": 48, "num_frames": 5}}]}}'
    )
    validation = {"log_validation": True, "validation_dataset_file": str(tmp_path / "prompts.json")}
    validation |= {"validation_steps": 1, "validation_sampling_steps": [2]}
    run["training"] |= (
        run_of(made, tmp_path / "out", "finetune")["training"] | validation | {"max_train_steps": 1, "num_gpus": 1}
    )
    assert start(run, tmp_path, "check") == 0
    assert start(run, tmp_path) == 0
    assert list((tmp_path / "out").rglob("00.mp4"))
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "model")]) == 0
    assert WanImageToVideoPipeline.from_pretrained(tmp_path / "model").image_encoder is not None
    sample = ["sample", str(tmp_path / "out"), "--prompt", "a cat", *SIZE, "--out", str(tmp_path / "videos")]
    assert main(sample) == 2
    assert "has no image_path" in capsys.readouterr().err
    assert main([*sample, "--image", str(image)]) == 0
    assert (tmp_path / "videos" / "00.mp4").exists()


def test_data_of_videos_alone_is_refused_with_what_is_missing(tiny, tmp_path, capsys):
    text = write_tiny_family(Kind("wan"), tmp_path / "t2v")
    run = run_of(tiny("i2v"), tmp_path / "out", "finetune")
    run["training"]["data_path"] = str(text.data)
    assert start(run, tmp_path, "check") == 2
    error = capsys.readouterr().err
    assert "holds no tensor first_frame_latent" in error
    assert "holds no tensor clip_feature" in error


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "method"), [("i2v", "rcm"), ("flf2v", "kd"), ("i2v_a14b", "dmd2")])
def test_methods_train_on_it_without_knowing(tiny, tmp_path, variant, method):
    """Tangents through the images, trajectories of a teacher that has both, rollouts on both sides of the boundary."""
    assert method in ALL
    made = tiny(variant)
    assert start(run_of(made, tmp_path / "out", method), tmp_path) == 0
    (checkpoint,) = (tmp_path / "out").glob("checkpoint-*")
    moved = []
    for network, state in read_role_weights(checkpoint, "student", ema=False).items():
        before = WanTransformer3DModel.from_pretrained(made.base, subfolder=network).state_dict()
        assert all(torch.isfinite(value).all() for value in state.values())
        moved.append(any(not torch.equal(state[name], before[name]) for name in before))
    assert any(moved)
