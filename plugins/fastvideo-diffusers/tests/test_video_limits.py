"""A family's limits find everything that a run asks for beyond them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.config.run import RunConfig
from fastvideo_diffusers.video_limits import VideoLimits
from fastvideo_testing.runs import load_config, toy_world

LIMITS = VideoLimits(family="any", name="Any", size_multiple=32, frames_divisor=8, unguided="Any does not guide")


@pytest.fixture
def make(tmp_path: Path):
    def run(method: dict[str, Any] | None = None, **training: Any) -> RunConfig:
        raw = {
            "recipe": {"family": "toy", "method": "toy"},
            "roles": {name: {"path": "maker/any", "trainable": name == "student"} for name in ("student", "teacher")},
            "training": {"output_dir": str(tmp_path), "max_train_steps": 1, "data_path": str(tmp_path), **training},
            "method_config": method or {},
        }
        return load_config(tmp_path, raw)

    with toy_world():
        yield run


def found(cfg: RunConfig) -> dict[str, str]:
    return {key: str(problem) for key, problem in LIMITS.problems(cfg)}


def test_what_fits_has_no_problems(make):
    assert found(make(num_height=64, num_width=96, num_frames=9)) == {}


def test_sizes_that_do_not_fit_are_told_with_their_neighbours(make):
    problems = found(make(num_height=16, num_width=100, num_frames=20))
    assert list(problems) == ["training.num_height", "training.num_width", "training.num_frames"]
    assert "16 pixels do not fit Any" in problems["training.num_height"]
    assert "use 32" in problems["training.num_height"]
    assert "use 96 or 128" in problems["training.num_width"]
    assert "multiples of 8 plus 1" in problems["training.num_frames"]
    assert "use 17 or 25" in problems["training.num_frames"]


def test_sparse_attention_guidance_below_one_and_missing_data_are_told(make, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    validation = {"log_validation": True, "validation_dataset_file": str(prompts), "validation_steps": 1}
    cfg = make({"attn_kind": "vsa"}, VSA_sparsity=0.5, validation_guidance_scale="1.0,0.5", **validation)
    problems = found(replace(cfg, training=cfg.training.model_copy(update={"data_path": None})))
    assert set(problems) == {
        "method_config.attn_kind",
        "training.VSA_sparsity",
        "training.data_path",
        "training.validation_guidance_scale[1]",
    }
    assert "the family 'any' has dense attention only" in problems["method_config.attn_kind"]
    assert (
        "guidance scale 0.5 is below 1, where Any does not guide" in problems["training.validation_guidance_scale[1]"]
    )
