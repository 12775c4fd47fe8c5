"""Exported folders, in plain diffusers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXPipeline
from huggingface_hub.utils import filter_repo_objects

from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import CheckpointError, ConfigError
from fastvideo_diffusers.schedule_fit import few_step_scheduler_config, fit_euler
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.export import export_pipeline, pipeline_sigmas
from fastvideo_ltx.family import build_sampler
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.schedule import many_step_config, resolve_flow_shift

CPU = torch.device("cpu")
PROMPT = ValidationPrompt("a cat", height=64, width=96, num_frames=9)
OPTIONS = {"height": 64, "width": 96, "num_frames": 9}


@pytest.fixture
def trained(tiny):
    """Weights that are not the base's."""
    folder = open_folder(tiny, where="x")
    state = folder.traits.load_transformer(tiny, dtype=torch.float32, device=CPU, where="x").state_dict()
    generator = torch.Generator().manual_seed(9)
    return {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def _plain_latents(folder, kind=LTXPipeline, **options) -> torch.Tensor:
    pipeline = kind.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline(prompt="a cat", generator=generator, output_type="latent", **OPTIONS, **options).frames


def _our_latents(path, trained, config=None, **how) -> torch.Tensor:
    sampler = build_sampler(str(path), config or LtxConfig(), device=CPU)
    sampler.handle.modules["transformer"].load_state_dict(trained)
    request = ValidationRequest(sampler.handle, None, **how)
    return sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))


def _export(base, out, trained, schedule=None, config=None):
    return export_pipeline(
        base,
        out,
        {"transformer": trained},
        pipeline_config=config or LtxConfig(),
        student_schedule=None if schedule is None else lambda warp: schedule,
    )


@pytest.mark.parametrize("steps", [[999, 0], [1000, 500], [1000, 757, 522]])
def test_a_few_step_student_in_plain_diffusers_makes_the_same_video(tiny, trained, tmp_path, steps):
    schedule = FewStepSchedule.from_denoising_steps(steps)
    notes = _export(tiny, tmp_path / "out", trained, schedule)
    count = len(schedule)
    assert notes == [f"sample it with LTXPipeline(num_inference_steps={count}, guidance_scale=1.0)"]
    plain = _plain_latents(tmp_path / "out", num_inference_steps=count, guidance_scale=1.0)
    ours = _our_latents(tiny, trained, sampler_kind="ode", sampling_timesteps=schedule.timesteps)
    torch.testing.assert_close(plain, ours, atol=1e-4, rtol=1e-4)
    many = _our_latents(tiny, trained, sampling_steps=count)
    assert (plain - many).abs().max() > 1e-3 or count == 1


def test_evenly_spaced_steps_that_are_warped_are_followed_exactly(tiny, trained, tmp_path):
    def schedule(warp):
        return FewStepSchedule.from_denoising_steps([1000, 750, 500, 250], warp=warp)

    notes = export_pipeline(
        tiny,
        tmp_path / "out",
        {"transformer": trained},
        pipeline_config=LtxConfig(shift_tokens=1024),
        student_schedule=schedule,
    )
    assert len(notes) == 1
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    shift, u = math.exp(0.95), torch.tensor([1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(pipeline_sigmas(scheduler, 4), shift * u / (1 + (shift - 1) * u), atol=1e-5, rtol=0)


def test_pipelines_that_take_timesteps_are_given_them(tiny_condition, trained, tmp_path):
    schedule = FewStepSchedule((1000.0, 990.0, 980.0, 100.0))
    notes = _export(tiny_condition, tmp_path / "out", trained, schedule)
    assert notes == ["sample it with LTXConditionPipeline(timesteps=[1000, 990, 980, 100], guidance_scale=1.0)"]
    plain = _plain_latents(
        tmp_path / "out",
        LTXConditionPipeline,
        num_inference_steps=4,
        timesteps=list(schedule.timesteps),
        guidance_scale=1.0,
    )
    ours = _our_latents(tiny_condition, trained, sampler_kind="ode", sampling_timesteps=schedule.timesteps)
    torch.testing.assert_close(plain.flatten(2).transpose(1, 2), ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("flow_shift", [None, 8.0])
def test_a_many_step_model_in_plain_diffusers_makes_the_same_video(tiny, trained, tmp_path, flow_shift):
    tokens = None if flow_shift else 1024
    config = LtxConfig(flow_shift=flow_shift, shift_tokens=tokens, negative_prompt="")
    assert _export(tiny, tmp_path / "out", trained, config=config) == []
    written = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    assert written["use_dynamic_shifting"] == (flow_shift is None)
    plain = _plain_latents(tmp_path / "out", num_inference_steps=4, guidance_scale=3.0)
    assert torch.equal(plain, _our_latents(tiny, trained, config, sampling_steps=4, guidance_scale=3.0))


def test_an_sde_student_is_sampled_stochastically(tiny, trained, tmp_path):
    _export(tiny, tmp_path / "out", trained, FewStepSchedule((1000.0, 500.0)), LtxConfig(sampler_kind="sde"))
    assert LTXPipeline.from_pretrained(tmp_path / "out").scheduler.config.stochastic_sampling is True


def test_an_sde_student_of_a_pipeline_that_cannot_is_noted(tiny_condition, trained, tmp_path):
    config = LtxConfig(sampler_kind="sde")
    notes = _export(tiny_condition, tmp_path / "out", trained, FewStepSchedule((1000.0, 500.0)), config)
    assert "LTXConditionPipeline cannot redraw the noise between steps" in notes[1]
    scheduler = LTXConditionPipeline.from_pretrained(tmp_path / "out").scheduler
    assert scheduler.config.stochastic_sampling is False


def test_an_exported_student_still_tells_its_own_scheduler(tiny, trained, tmp_path, capfd):
    _export(tiny, tmp_path / "out", trained, FewStepSchedule((1000.0, 757.0, 522.0)))
    base, folder = open_folder(tiny, where="x"), open_folder(str(tmp_path / "out"), where="x")
    assert resolve_flow_shift(folder, LtxConfig(), tokens=1024) == pytest.approx(math.exp(0.95))
    assert many_step_config(folder, LtxConfig()) == many_step_config(base, LtxConfig())
    again = _our_latents(tmp_path / "out", trained, sampling_steps=3)
    assert torch.equal(again, _our_latents(tiny, trained, sampling_steps=3))
    capfd.readouterr()
    LTXPipeline.from_pretrained(tmp_path / "out")
    assert "not expected" not in capfd.readouterr().err


@pytest.mark.parametrize("levels", [(1000, 900, 700), (1000, 999, 998), (1000, 500, 20), (1000, 960, 900, 750, 500)])
def test_three_steps_and_shifted_even_spacing_are_met(levels):
    shift = 3.0
    schedule = FewStepSchedule(tuple(float(level) for level in levels))
    if len(levels) == 5:
        u = [1 - i / 5 for i in range(5)]
        schedule = FewStepSchedule(tuple(1000 * shift * v / (1 + (shift - 1) * v) for v in u))
    fitted = fit_euler(schedule, pipeline_sigmas, flow_shift=3.0)
    assert fitted.deviation < 1e-5
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        few_step_scheduler_config(schedule, fitted, kind="ode", base_scheduler={})
    )
    wanted = torch.tensor(schedule.timesteps) / 1000
    torch.testing.assert_close(pipeline_sigmas(scheduler, len(schedule)), wanted, atol=1e-5, rtol=0)


def test_a_schedule_that_diffusers_cannot_follow_is_noted_with_its_deviation(tiny, trained, tmp_path):
    schedule = FewStepSchedule((1000.0, 990.0, 980.0, 100.0))
    notes = _export(tiny, tmp_path / "out", trained, schedule)
    scheduler = LTXPipeline.from_pretrained(tmp_path / "out").scheduler
    deviation = (pipeline_sigmas(scheduler, 4) * 1000 - torch.tensor(schedule.timesteps)).abs().max() / 1000
    assert deviation > 0.01
    assert f"largest deviation in sigma is {deviation:.4f}" in notes[1]


def test_weights_keep_their_dtype_and_values(tiny, trained, tmp_path):
    half = {name: value.bfloat16() for name, value in trained.items()}
    _export(tiny, tmp_path / "out", half)
    folder = open_folder(str(tmp_path / "out"), where="x")
    loaded = folder.traits.load_transformer(folder.path, dtype=torch.float32, device=CPU, where="x").state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in half.items())


def test_a_folder_with_something_in_it_is_left_alone(tiny, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        _export(tiny, tmp_path / "out", trained)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_weights_of_another_network_leave_nothing_behind(tiny, trained, tmp_path):
    trained.pop("proj_out.bias")
    with pytest.raises(CheckpointError, match=r"do not fit the transformer: .*proj_out\.bias"):
        _export(tiny, tmp_path / "out", trained)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing_behind(tiny, trained, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("diffusers.LTXVideoTransformer3DModel.save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        _export(tiny, tmp_path / "out", trained)
    assert list(tmp_path.iterdir()) == []


def test_only_a_transformer_is_exported(tiny, trained, tmp_path):
    with pytest.raises(CheckpointError, match="holds the modules transformer, other"):
        export_pipeline(
            tiny,
            tmp_path / "out",
            {"transformer": trained, "other": {}},
            pipeline_config=LtxConfig(),
            student_schedule=None,
        )


# --- what else a repository holds ----------------------------------------------------------------------------------------


def test_whole_checkpoints_beside_the_pipeline_stay_where_they_are(tiny, tmp_path, trained):
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    (base / "ltx-whole.safetensors").write_bytes(b"many gigabytes")
    (base / "other-programs").mkdir()
    (base / "LTX-Video-License.txt").write_text("of the base\n")
    _export(str(base), tmp_path / "out", trained)
    names = {item.name for item in (tmp_path / "out").iterdir()}
    assert names == {item.name for item in Path(tiny).iterdir()} | {"LTX-Video-License.txt"}


def test_of_a_hub_id_nothing_but_the_components_is_fetched(tiny, tmp_path, trained, monkeypatch):
    asked = {}

    def fetch(repository, *, allow_patterns):
        asked[repository] = allow_patterns
        return tiny

    index = json.loads((Path(tiny) / "model_index.json").read_text())
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("fastvideo_ltx.export.open_folder", lambda path, where: open_folder(tiny, where=where))
    monkeypatch.setattr("fastvideo_diffusers.export.DiffusionPipeline.load_config", lambda path, **_: index)
    _export("maker/pipeline", tmp_path / "out", trained)
    (patterns,) = asked.values()
    components = {pattern for pattern in patterns if pattern.endswith("/*")}
    assert components == {"vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*"}
    assert not filter_repo_objects_matches("ltx-whole.safetensors", patterns)
    assert filter_repo_objects_matches("ltxv-2b.license.txt", patterns)


def filter_repo_objects_matches(name: str, patterns: list[str]) -> bool:
    return bool(list(filter_repo_objects([name], allow_patterns=patterns)))


@pytest.mark.parametrize(("streams", "told"), [(("video",), True), (None, False)])
def test_a_run_on_video_alone_is_told_that_the_plain_pipeline_makes_sound(tiny_ltx2, tmp_path, streams, told):
    folder = open_folder(tiny_ltx2, where="x")
    state = folder.traits.load_transformer(tiny_ltx2, dtype=torch.float32, device=CPU, where="x").state_dict()
    notes = _export(tiny_ltx2, tmp_path / "out", state, config=LtxConfig(streams=streams))
    assert any("trained on video alone; LTX2Pipeline makes sound too" in note for note in notes) == told
