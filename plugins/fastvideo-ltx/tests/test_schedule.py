"""The shift by the number of tokens, and schedulers that turn it off."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline

from fastvideo_core.errors import ConfigError, UserError
from fastvideo_data.schema import encode_tensor, t2v_schema, write_part
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.schedule import many_step_scheduler, resolve_flow_shift


def _folder(tiny, tmp_path, **scheduler):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **scheduler}))
    return open_folder(str(copy), where="x")


@pytest.mark.parametrize(
    ("tokens", "mu"), [(1024, 0.95), (4096, 2.05), (2560, 1.5), (18, 0.95 + (18 - 1024) * 1.1 / 3072), (7392, 3.23021)]
)
def test_the_shift_is_e_to_the_published_line_in_the_tokens(tiny, tokens, mu):
    shift = resolve_flow_shift(open_folder(tiny, where="x"), LtxConfig(), tokens=tokens)
    assert math.log(shift) == pytest.approx(mu, abs=1e-5)


def test_a_fixed_shift_of_the_configuration_replaces_it_and_shift_tokens_choose_where_it_is_taken(tiny):
    folder = open_folder(tiny, where="x")
    assert resolve_flow_shift(folder, LtxConfig(flow_shift=4.5), tokens=1024) == 4.5
    shift = resolve_flow_shift(folder, LtxConfig(shift_tokens=4096), tokens=1024)
    assert shift == pytest.approx(math.exp(2.05))


def test_a_scheduler_without_dynamic_shift_is_honoured(tiny, tmp_path):
    folder = _folder(tiny, tmp_path, use_dynamic_shifting=False, shift=3.5)
    for tokens in (1024, 4096):
        assert resolve_flow_shift(folder, LtxConfig(), tokens=tokens) == 3.5


def test_a_linear_dynamic_shift_is_mu_itself(tiny, tmp_path):
    folder = _folder(tiny, tmp_path, time_shift_type="linear")
    assert resolve_flow_shift(folder, LtxConfig(), tokens=4096) == pytest.approx(2.05)


def test_the_adapter_shifts_as_the_scheduler_does_at_inference(run_config, tiny):
    adapter = LtxFamily().build(run_config(pipeline={"shift_tokens": 3000})).adapter
    mu = 0.95 + (3000 - 1024) * 1.1 / 3072
    scheduler = LTXPipeline.from_pretrained(tiny).scheduler
    scheduler.register_to_config(shift_terminal=None)
    levels = np.linspace(1.0, 1 / 8, 8)
    scheduler.set_timesteps(sigmas=levels, mu=mu)
    shifted = adapter.shift_and_clamp_timestep(torch.from_numpy(levels) * 1000)
    torch.testing.assert_close(shifted.float(), scheduler.timesteps, rtol=1e-5, atol=1e-3)
    closed_form = [1000 * math.exp(mu) / (math.exp(mu) + 1 / sigma - 1) for sigma in levels.tolist()]
    torch.testing.assert_close(shifted, torch.tensor(closed_form, dtype=torch.float64))


def test_many_step_levels_end_at_the_terminal_level(tiny):
    scheduler = many_step_scheduler(open_folder(tiny, where="x"), LtxConfig(), steps=5)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.2, 5), mu=1.3)
    assert scheduler.sigmas[0].item() == 1
    assert scheduler.sigmas[-2].item() == pytest.approx(0.1)
    shifted = [math.exp(1.3) / (math.exp(1.3) + 1 / sigma - 1) for sigma in np.linspace(1.0, 0.2, 5)]
    stretched = [1 - (1 - sigma) * 0.9 / (1 - shifted[-1]) for sigma in shifted]
    torch.testing.assert_close(scheduler.sigmas[:-1], torch.tensor(stretched).float(), rtol=1e-5, atol=1e-6)


def test_one_step_is_not_stretched_to_nothing(tiny):
    scheduler = many_step_scheduler(open_folder(tiny, where="x"), LtxConfig(), steps=1)
    scheduler.set_timesteps(sigmas=[1.0], mu=1.3)
    assert scheduler.sigmas.tolist() == [1.0, 0.0]


def test_a_fixed_shift_reaches_many_step_sampling(tiny):
    scheduler = many_step_scheduler(open_folder(tiny, where="x"), LtxConfig(flow_shift=6.0), steps=4)
    assert (scheduler.config.use_dynamic_shifting, scheduler.config.shift) == (False, 6.0)
    assert scheduler.config.shift_terminal == 0.1


def test_another_scheduler_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"its scheduler is a DDIMScheduler\n    allowed: FlowMatchEuler"):
        _folder(tiny, tmp_path, _class_name="DDIMScheduler")


# --- which tokens a run counts ----------------------------------------------------------------------------------------


def _data(tmp_path, *shapes: tuple[int, int, int]) -> str:
    rows = []
    for number, shape in enumerate(shapes):
        row = {"id": f"s{number}", "caption": "x", "media_type": "video", "file_name": "x.mp4", "width": 1, "height": 1}
        row |= {"num_frames": shape[0], "duration_sec": 1.0, "fps": 24.0}
        row |= encode_tensor("vae_latent", torch.zeros(128, *shape)) | encode_tensor(
            "text_embedding", torch.zeros(2, 32)
        )
        rows.append(row)
    (tmp_path / "data").mkdir()
    write_part(tmp_path / "data" / "part.parquet", rows, t2v_schema(), {})
    return str(tmp_path / "data")


def _resolved(cfg, source: str = "data") -> int | None:
    return LtxFamily().resolve(cfg, latents_source=source).shift_tokens


def test_training_on_data_counts_the_data_s_tokens_also_where_prompts_have_another_size(run_config, tmp_path):
    data = _data(tmp_path, (3, 2, 3), (2, 2, 3))
    cfg = run_config(pipeline={"shift_tokens": None}, data_path=data, num_height=512, num_width=512, num_frames=161)
    assert _resolved(cfg) == 18
    adapter = LtxFamily().build(cfg).adapter
    assert math.log(adapter.flow_shift) == pytest.approx(0.95 + (18 - 1024) * 1.1 / 3072)
    assert _resolved(run_config(pipeline={"shift_tokens": None}, data_path=data, num_latent_t=2)) == 12


def test_data_free_training_counts_the_run_s_tokens_or_else_the_data_s(run_config, tmp_path):
    data = _data(tmp_path, (3, 2, 3))
    cfg = run_config(pipeline={"shift_tokens": None}, data_path=data, num_height=64, num_width=64, num_frames=9)
    assert _resolved(cfg, "zeros") == 8
    assert _resolved(run_config(pipeline={"shift_tokens": None}, data_path=data), "zeros") == 18


def test_what_is_configured_or_not_needed_is_left_alone(run_config, tiny, tiny_condition):
    assert _resolved(run_config(pipeline={"shift_tokens": 77})) == 77
    assert _resolved(run_config(pipeline={"shift_tokens": None, "flow_shift": 2.0})) is None
    assert _resolved(run_config(pipeline={"shift_tokens": None}, paths={"student": tiny_condition})) is None
    with pytest.raises(UserError, match="num_height: training without data latents needs a size"):
        _resolved(run_config(pipeline={"shift_tokens": None}))


def test_the_tiny_scheduler_is_the_published_one(tiny):
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tiny, subfolder="scheduler")
    assert (scheduler.config.base_shift, scheduler.config.max_shift, scheduler.config.shift_terminal) == (
        0.95,
        2.05,
        0.1,
    )
