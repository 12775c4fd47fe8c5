"""The spec, the config section and its checks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from fastvideo_core.registry.specs import ModelPlugin
from fastvideo_wan.config import WanConfig
from fastvideo_wan.family import WanFamily
from fastvideo_wan.plugin import PLUGIN


def test_the_spec_is_sound_and_its_targets_exist():
    assert isinstance(PLUGIN, ModelPlugin)
    assert PLUGIN.name == "wan"
    assert PLUGIN.flaws() == []
    assert WanFamily.offers() == ("encoder", "sampler", "export", "export_lora", "tiny", "demo")
    assert PLUGIN.impl == "fastvideo_wan.family:WanFamily"


def test_spec_and_config_load_without_torch():
    code = "import sys, fastvideo_wan.plugin, fastvideo_wan.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flow_shift_must_be_positive():
    with pytest.raises(ValidationError, match="greater than 0"):
        WanConfig(flow_shift=0.0)


def test_sizes_and_guidance_that_wan_cannot_do_are_all_reported_with_their_keys(run_config):
    cfg = run_config(
        num_height=490,
        num_width=832,
        num_frames=80,
        log_validation=True,
        validation_guidance_scale=[5.0, 0.5],
        VSA_sparsity=0.5,
    )
    problems = dict(cfg.pipeline_config.check_run(cfg))
    assert set(problems) == {
        "training.VSA_sparsity",
        "training.data_path",
        "training.num_height",
        "training.num_frames",
        "training.validation_guidance_scale[1]",
    }
    assert problems["training.num_height"].fix == "use 480 or 496"
    assert problems["training.num_frames"].fix == "use 77 or 81"
    assert "brings no data loader of its own" in problems["training.data_path"].found
    assert "found 0.5, and the student's attention is dense" in problems["training.VSA_sparsity"].found


def test_a_run_that_wan_can_do_has_no_problems(run_config):
    cfg = run_config(num_height=480, num_width=832, num_frames=81, log_validation=True, data_path="latents")
    assert cfg.pipeline_config.check_run(cfg) == []
