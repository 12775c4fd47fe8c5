"""The spec, the config section and its checks."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.registry.specs import ModelPlugin
from fastvideo_data.run_checks import size_warnings
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.generations import GENERATIONS
from fastvideo_ltx.plugin import PLUGIN


def test_the_spec_is_sound_and_its_targets_exist():
    assert isinstance(PLUGIN, ModelPlugin)
    assert PLUGIN.name == "ltx"
    assert PLUGIN.flaws() == []
    assert LtxFamily.offers() == ("encoder", "sampler", "export", "export_lora", "tiny")
    assert PLUGIN.impl == "fastvideo_ltx.family:LtxFamily"


def test_the_spec_names_the_pipelines_that_the_generations_read():
    assert PLUGIN.pipelines == tuple(name for one in GENERATIONS.values() for name in one.pipelines)


def test_spec_and_config_load_without_torch():
    code = "import sys, fastvideo_ltx.plugin, fastvideo_ltx.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow_shift": 0.0}, "greater than 0"),
        ({"first_frame_probability": 1.5}, "less than or equal to 1"),
        ({"fps": 0.0}, "greater than 0"),
        ({"streams": ["audio"]}, "video must be among them"),
        ({"streams": ["video", "video"]}, "the same stream is named twice"),
        ({"streams": ["text"]}, "'video' or 'audio'"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValidationError, match=message):
        LtxConfig(**settings)


def test_sizes_and_guidance_that_ltx_cannot_do_are_all_reported_with_their_keys(run_config):
    cfg = run_config(
        num_height=490,
        num_width=832,
        num_frames=80,
        log_validation=True,
        validation_guidance_scale=[5.0, 0.5],
        attn_kind="vsa",
        VSA_sparsity=0.5,
        pipeline={"flow_shift": 3.0},
    )
    problems = dict(cfg.pipeline_config.check_run(cfg))
    assert set(problems) == {
        "method_config.attn_kind",
        "training.VSA_sparsity",
        "training.data_path",
        "training.num_height",
        "training.num_frames",
        "training.validation_guidance_scale[1]",
        "pipeline_config.shift_tokens",
    }
    assert problems["training.num_height"].fix == "use 480 or 512"
    assert problems["training.num_frames"].fix == "use 73 or 81"
    assert "brings no data loader of its own" in problems["training.data_path"].found
    assert "found 0.5, but the family 'ltx' has dense" in problems["training.VSA_sparsity"].found
    assert "dense attention only" in problems["method_config.attn_kind"].found
    assert "flow_shift replaces it" in problems["pipeline_config.shift_tokens"].found


def test_a_run_that_ltx_can_do_has_no_problems(run_config):
    cfg = run_config(num_height=512, num_width=704, num_frames=81, log_validation=True, data_path="latents")
    assert cfg.pipeline_config.check_run(cfg) == []


# --- before weights are loaded ------------------------------------------------------------------------------------------


def _problems(cfg, *, prompts=(), rows=(), source="data") -> str:
    found = LtxFamily().input_problems(cfg, prompts=prompts, rows=rows, latents_source=source, many_steps=True)
    return "\n".join(str(problem) for problem in found)


def _row(**changes):
    row = {"vae_latent": torch.zeros(1, 128, 2, 2, 3), "text_embedding": torch.zeros(1, 3, 32), "info": [{"id": "a"}]}
    return {**row, **changes}


def test_a_good_run_has_no_problems(run_config):
    prompt = ValidationPrompt("x", height=64, width=96, num_frames=9)
    assert _problems(run_config(), prompts=[prompt], rows=[_row()]) == ""


def test_prompts_and_rows_that_do_not_fit_are_all_reported(run_config):
    prompt = ValidationPrompt("x", height=60, width=96, num_frames=9)
    rows = [_row(text_embedding=torch.zeros(1, 3, 8)), _row(vae_latent=torch.zeros(1, 16, 2, 2, 3))]
    text = _problems(run_config(), prompts=[prompt], rows=[*rows, _row(info=[{"id": "b", "fps": -1.0}])])
    assert "height is 60" in text
    assert "text_embedding has shape [3, 8]" in text
    assert "vae_latent has shape [16, 2, 2, 3]" in text
    assert "its fps is -1" in text


def test_given_first_frames_need_data_also_in_data_free_training(run_config):
    row = {key: value for key, value in _row().items() if key != "vae_latent"}
    sizes = {"num_height": 64, "num_width": 96, "num_frames": 9}
    assert _problems(run_config(**sizes), rows=[row], source="zeros") == ""
    cfg = run_config(**sizes, pipeline={"first_frame_probability": 0.5})
    assert "captions but no vae_latent" in _problems(cfg, rows=[row], source="zeros")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streams": ["video", "audio"]}, "pipeline_config.streams: audio is asked for, but .* is LTX-Video"),
        ({"audio_loss_weight": 0.5}, "pipeline_config.audio_loss_weight: found 0.5, but no audio is trained"),
    ],
)
def test_sound_is_not_asked_of_ltx_video(run_config, settings, message):
    assert re.search(message, _problems(run_config(pipeline=settings)))


def test_a_shift_that_nothing_gives_a_size_for_is_reported(run_config):
    cfg = run_config(pipeline={"shift_tokens": None})
    assert "training.num_height: training without data latents needs a size" in _problems(cfg, rows=[_row()])
    assert _problems(cfg, rows=[]) == ""  # data that cannot be read is told where it is read


def test_sizes_of_the_data_and_the_adapter_are_told_without_weights(run_config):
    cfg = run_config(num_height=512, num_width=96, num_frames=9)
    family = LtxFamily()
    assert family.adapter_class().__name__ == "LtxAdapter"
    sizes = family.data_sizes(cfg, [_row(), {"text_embedding": torch.zeros(1, 3, 32)}])
    (note,) = size_warnings(cfg.training, sizes)
    assert "training.num_height is 512, and the data's videos have 64" in note


def test_first_frames_of_another_size_than_the_run_s_are_told_before_step_1(run_config):
    cfg = run_config(num_height=64, num_width=64, num_frames=9, pipeline={"first_frame_probability": 0.5})
    text = _problems(cfg, rows=[_row()], source="zeros")
    assert "asks for 2 x 2 latents, but the data's first frames are 2 x 3" in text
