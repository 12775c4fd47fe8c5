"""Exported folders, in plain diffusers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import CheckpointError, ConfigError
from fastvideo_diffusers.schedule_fit import few_step_scheduler_config, fit_euler
from fastvideo_diffusers.scheduler_shift import shifted_scheduler
from fastvideo_wan.config import WanConfig
from fastvideo_wan.export import export_pipeline, pipeline_sigmas
from fastvideo_wan.folder import open_folder
from fastvideo_wan.latents import decode_frames
from fastvideo_wan.loading import load_transformer
from fastvideo_wan.sampler import build_sampler
from fastvideo_wan.schedule import resolve_flow_shift
from fastvideo_wan.tiny import write_tiny_pipeline

CPU = torch.device("cpu")
PROMPT = ValidationPrompt("a cat", height=32, width=48, num_frames=5)
OPTIONS = {"height": 32, "width": 48, "num_frames": 5}


@pytest.fixture
def trained(tiny):
    """Weights that are not the base's."""
    state = load_transformer(tiny, dtype=torch.float32, device=CPU).state_dict()
    generator = torch.Generator().manual_seed(9)
    return {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def _plain_video(folder, **options) -> np.ndarray:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a cat", generator=torch.Generator().manual_seed(3), **OPTIONS, **options).frames[0]


def _our_video(tiny, trained, config=None, **how) -> np.ndarray:
    sampler = build_sampler(tiny, config or WanConfig(), device=CPU)
    sampler.handle.modules["transformer"].load_state_dict(trained)
    request = ValidationRequest(sampler.handle, None, **how)
    latents = sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))
    return decode_frames(sampler.sampler.autoencoder(), latents, sampler.sampler.folder)[0].numpy()


@pytest.mark.parametrize("steps", [[999, 0], [1000, 500], [1000, 757, 522], [999, 750, 500, 250, 0]])
def test_a_few_step_student_in_plain_diffusers_makes_the_same_video(tiny, trained, tmp_path, steps):
    schedule = FewStepSchedule.from_denoising_steps(steps)
    notes = export_pipeline(
        tiny,
        tmp_path / "out",
        {"transformer": trained},
        pipeline_config=WanConfig(),
        student_schedule=lambda warp: schedule,
    )
    count = len(schedule)
    assert notes == [f"sample it with WanPipeline(num_inference_steps={count}, guidance_scale=1.0)"]
    plain = _plain_video(tmp_path / "out", num_inference_steps=count, guidance_scale=1.0)
    ours = _our_video(tiny, trained, sampler_kind="ode", sampling_timesteps=schedule.timesteps)
    assert np.abs(plain - ours).max() < 1e-4
    assert np.abs(plain - _our_video(tiny, trained, sampling_steps=count)).max() > 1e-3 or count == 1


def test_a_schedule_is_warped_by_the_runs_flow_shift(tiny, trained, tmp_path):
    def schedule(warp):
        return FewStepSchedule.from_denoising_steps([1000, 750, 500, 250], warp=warp)

    config = WanConfig(flow_shift=5.0)
    notes = export_pipeline(
        tiny, tmp_path / "out", {"transformer": trained}, pipeline_config=config, student_schedule=schedule
    )
    assert len(notes) == 1
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    scheduler.set_timesteps(4)
    u = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    torch.testing.assert_close(scheduler.sigmas, 5 * u / (1 + 4 * u), atol=1e-5, rtol=0)


@pytest.mark.parametrize("flow_shift", [None, 8.0])
def test_a_many_step_model_in_plain_diffusers_makes_the_same_video(tiny, trained, tmp_path, flow_shift):
    config = WanConfig(flow_shift=flow_shift, negative_prompt="")
    notes = export_pipeline(
        tiny, tmp_path / "out", {"transformer": trained}, pipeline_config=config, student_schedule=None
    )
    assert notes == []
    assert json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())["shift"] == (flow_shift or 3.0)
    plain = _plain_video(tmp_path / "out", num_inference_steps=4, guidance_scale=3.0)
    assert np.array_equal(plain, _our_video(tiny, trained, config, sampling_steps=4, guidance_scale=3.0))


def test_unipc_keeps_its_class(trained, tmp_path):
    write_tiny_pipeline(tmp_path / "base", scheduler="unipc")
    config = WanConfig(flow_shift=6.0)
    out = tmp_path / "out"
    export_pipeline(
        str(tmp_path / "base"),
        out,
        {"transformer": trained},
        pipeline_config=config,
        student_schedule=lambda warp: None,
    )
    scheduler = WanPipeline.from_pretrained(out).scheduler
    assert type(scheduler).__name__ == "UniPCMultistepScheduler"
    assert scheduler.config.flow_shift == 6.0


def test_an_sde_student_is_sampled_stochastically(tiny, trained, tmp_path):
    schedule = FewStepSchedule((1000.0, 500.0))
    export_pipeline(
        tiny,
        tmp_path / "out",
        {"transformer": trained},
        pipeline_config=WanConfig(sampler_kind="sde"),
        student_schedule=lambda warp: schedule,
    )
    assert WanPipeline.from_pretrained(tmp_path / "out").scheduler.config.stochastic_sampling is True


def test_an_exported_student_still_tells_its_flow_shift(tiny, trained, tmp_path, capfd):
    schedule = FewStepSchedule((1000.0, 757.0, 522.0))
    config = WanConfig(flow_shift=8.0)
    export_pipeline(
        tiny,
        tmp_path / "out",
        {"transformer": trained},
        pipeline_config=config,
        student_schedule=lambda warp: schedule,
    )
    folder = open_folder(str(tmp_path / "out"), where="x")
    assert resolve_flow_shift(folder, WanConfig()) == 8.0
    many = shifted_scheduler(folder, 8.0)
    assert (many.config.shift, many.config.shift_terminal) == (8.0, None)
    capfd.readouterr()
    WanPipeline.from_pretrained(tmp_path / "out")
    assert "not expected" not in capfd.readouterr().err


@pytest.mark.parametrize("levels", [(1000, 900, 300), (1000, 999, 998), (1000, 500, 20), (1000, 960, 900, 750, 500)])
def test_three_steps_and_shifted_even_spacing_are_met(levels):
    shift = 3.0
    schedule = FewStepSchedule(tuple(float(level) for level in levels))
    if len(levels) == 5:
        u = [1 - i / 5 for i in range(5)]
        schedule = FewStepSchedule(tuple(1000 * shift * v / (1 + (shift - 1) * v) for v in u))
    fitted = fit_euler(schedule, pipeline_sigmas, flow_shift=3.0)
    assert fitted.deviation < 1e-5
    config = few_step_scheduler_config(schedule, fitted, kind="ode", flow_shift=3.0)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(len(schedule))
    wanted = torch.tensor([*schedule.timesteps, 0.0]) / 1000
    torch.testing.assert_close(scheduler.sigmas, wanted, atol=1e-5, rtol=0)


def test_a_schedule_that_diffusers_cannot_follow_is_noted_with_its_deviation(tiny, trained, tmp_path):
    schedule = FewStepSchedule((1000.0, 990.0, 980.0, 100.0))
    notes = export_pipeline(
        tiny,
        tmp_path / "out",
        {"transformer": trained},
        pipeline_config=WanConfig(),
        student_schedule=lambda warp: schedule,
    )
    scheduler = WanPipeline.from_pretrained(tmp_path / "out").scheduler
    scheduler.set_timesteps(4)
    deviation = (scheduler.sigmas[:-1] * 1000 - torch.tensor(schedule.timesteps)).abs().max() / 1000
    assert deviation > 0.01
    assert f"largest deviation in sigma is {deviation:.4f}" in notes[1]
    assert not math.isnan(deviation)


def test_weights_keep_their_dtype_and_values(tiny, trained, tmp_path):
    half = {name: value.bfloat16() for name, value in trained.items()}
    export_pipeline(tiny, tmp_path / "out", {"transformer": half}, pipeline_config=WanConfig(), student_schedule=None)
    exported = load_transformer(str(tmp_path / "out"), dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(exported[name], value.float()) for name, value in half.items())


def test_a_folder_with_something_in_it_is_left_alone(tiny, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export_pipeline(
            tiny, tmp_path / "out", {"transformer": trained}, pipeline_config=WanConfig(), student_schedule=None
        )
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_weights_of_another_network_leave_nothing_behind(tiny, trained, tmp_path):
    trained.pop("proj_out.bias")
    with pytest.raises(CheckpointError, match=r"do not fit the transformer: .*proj_out\.bias"):
        export_pipeline(
            tiny, tmp_path / "out", {"transformer": trained}, pipeline_config=WanConfig(), student_schedule=None
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing_behind(tiny, trained, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("diffusers.WanTransformer3DModel.save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        export_pipeline(
            tiny, tmp_path / "out", {"transformer": trained}, pipeline_config=WanConfig(), student_schedule=None
        )
    assert list(tmp_path.iterdir()) == []


def test_only_a_transformer_is_exported(tiny, trained, tmp_path):
    with pytest.raises(CheckpointError, match="holds the modules transformer, other"):
        export_pipeline(
            tiny,
            tmp_path / "out",
            {"transformer": trained, "other": {}},
            pipeline_config=WanConfig(),
            student_schedule=None,
        )


def test_what_else_the_base_s_folder_holds_stays_where_it_is(tiny, tmp_path):
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    (base / "whole.safetensors").write_bytes(b"many gigabytes")
    (base / "LICENSE.md").write_text("of the base\n")
    state = load_transformer(str(base), dtype=torch.float32, device=torch.device("cpu")).state_dict()
    settings = {"pipeline_config": WanConfig(), "student_schedule": None}
    export_pipeline(str(base), tmp_path / "out", {"transformer": state}, **settings)
    names = {item.name for item in (tmp_path / "out").iterdir()}
    assert names == {item.name for item in Path(tiny).iterdir()} | {"LICENSE.md"}
