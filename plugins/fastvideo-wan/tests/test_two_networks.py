"""Wan 2.2 A14B: one network from the boundary up, another below it."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from safetensors import safe_open

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.contracts.noise_ranges import is_trained_at
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_core.errors import CheckpointError, ConfigError
from fastvideo_core.weights.lora import add_lora
from fastvideo_diffusers.schedule_fit import timestep_shift
from fastvideo_testing.prepared_family import one_sample
from fastvideo_wan.config import WanConfig
from fastvideo_wan.export import _scheduler as scheduler_of_export
from fastvideo_wan.export import export_pipeline
from fastvideo_wan.export_lora import export_lora
from fastvideo_wan.family import WanFamily
from fastvideo_wan.folder import TRANSFORMER_2, open_folder
from fastvideo_wan.loading import load_transformer
from fastvideo_wan.sampler import build_sampler

CPU = torch.device("cpu")
HIGH, LOW = "transformer", "transformer_2"
PROMPT = ValidationPrompt("a cat", height=32, width=48, num_frames=5)
OPTIONS = {"height": 32, "width": 48, "num_frames": 5, "output_type": "latent", "return_dict": False}


@contextmanager
def calls(handle):
    """Inside, the list grows by (network, its first timestep) with every call."""
    made = []

    def note(name):
        return lambda module, args, kwargs: made.append((name, float(kwargs["timestep"].flatten()[0])))

    with ExitStack() as hooks:
        for name, module in handle.modules.items():
            hooks.enter_context(module.register_forward_pre_hook(note(name), with_kwargs=True))
        yield made


def build(run_config, path, *, ratio=None, **roles):
    """Components of a run over an A14B, its boundary_ratio replaced where one is given."""
    family = WanFamily()
    cfg = run_config(roles or {"student": True}, paths=dict.fromkeys(roles or {"student": True}, path))
    found = family.roles(cfg)
    if ratio is not None:
        for name, folder in found.folders.items():
            found.folders[name] = replace(folder, boundary_ratio=ratio)
    built = family.build(cfg)
    built.adapter.on_train_start()
    return built


def predict(built, raw_batch, t, role="student"):
    batch = built.adapter.prepare_batch(raw_batch)
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return built.adapter.predict_noise(built.bundle[role], noisy, t, batch, conditional=True)


@pytest.mark.parametrize(
    ("shift", "ratio", "timesteps", "high"),
    [
        (3, 0.875, (1000, 900, 750, 500), 2),
        (3, 0.9, (1000, 900, 750, 500), 2),  # 900 is the boundary itself
        (5, 0.875, (1000, 937.5, 833.33, 625), 2),
        (5, 0.9, (1000, 937.5, 833.33, 625), 2),
        (8, 0.875, (1000, 960, 888.89, 727.27), 3),
        (8, 0.9, (1000, 960, 888.89, 727.27), 2),
        (12, 0.875, (1000, 972.97, 923.08, 800), 3),
        (12, 0.9, (1000, 972.97, 923.08, 800), 3),
    ],
)
def test_each_step_of_a_student_s_schedule_calls_one_network(
    run_config, tiny_a14b, raw_batch, tmp_path, shift, ratio, timesteps, high
):
    """In training, as the rollout gives t, and in sampling, as the pipeline compares it."""
    schedule = FewStepSchedule.from_denoising_steps([999, 750, 500, 250, 0], warp=timestep_shift(shift, 1000))
    assert schedule.timesteps == pytest.approx(timesteps, abs=5e-3)
    built = build(run_config, tiny_a14b, ratio=ratio)
    student = built.bundle["student"]
    boundary = ratio * 1000
    assert built.adapter.noise_ranges(student) == ((0.0, boundary), (boundary, 1000.0))
    wanted = [HIGH] * high + [LOW] * (4 - high)
    with calls(student) as made:
        for index in range(4):
            predict(built, raw_batch, schedule.timestep_tensor(index, 2, CPU))
    assert [name for name, _ in made] == wanted
    copy = Path(shutil.copytree(tiny_a14b, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": ratio}))
    sampler = build_sampler(str(copy), WanConfig(), device=CPU)
    request = ValidationRequest(sampler.handle, tmp_path, sampler_kind="ode", sampling_timesteps=schedule.timesteps)
    with calls(sampler.handle) as made:
        sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))
    assert [name for name, _ in made] == wanted


def test_the_boundary_is_exact_at_shift_3_and_a_boundary_of_0_9():
    schedule = FewStepSchedule.from_denoising_steps([1000, 750], warp=timestep_shift(3.0, 1000))
    assert schedule.timesteps[1] == 0.9 * 1000 == 900.0
    assert float(schedule.timestep_tensor(1, 1, CPU)) == 900.0


def test_a_batch_is_served_by_one_network_and_never_by_both(run_config, tiny_a14b, raw_batch):
    built = build(run_config, tiny_a14b)
    student, batch = built.bundle["student"], built.adapter.prepare_batch(raw_batch)
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    for levels in ([300.0, 874.9], [875.0, 990.0]):
        t = torch.tensor(levels)
        both = predict(built, raw_batch, t)
        for index in range(2):
            part = slice(index, index + 1)
            with torch.no_grad():
                alone = built.adapter.predict_noise(
                    student, noisy[part], t[part], one_sample(batch, index), conditional=True
                )
            torch.testing.assert_close(alone[0], both[index], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="from 300 to 875 in one call of role 'student', whose networks change at 875"):
        predict(built, raw_batch, torch.tensor([300.0, 875.0]))


def test_gradients_reach_the_called_network_alone_and_features_are_its_own(run_config, tiny_a14b, raw_batch):
    built = build(run_config, tiny_a14b)
    student, batch = built.bundle["student"], built.adapter.prepare_batch(raw_batch)
    for t, called in ((900.0, HIGH), (100.0, LOW)):
        features = built.adapter.extract_features(student, batch.latents, torch.full((2,), t), batch, conditional=True)
        assert [one.shape[2] for one in features] == list(built.adapter.feature_channels(student))
        sum(one.square().mean() for one in features).backward()
        reached = {name.partition(".")[0] for name, p in student.named_parameters() if p.grad is not None}
        assert reached == {called}
        for parameter in student.trainable_parameters():
            parameter.grad = None


def test_ranges_are_those_of_the_trained_networks_and_adapters_are_put_on_these_alone(run_config, tiny_a14b):
    pytest.importorskip("peft")
    built = build(run_config, tiny_a14b, student=True, teacher=False)
    student, teacher = built.bundle["student"], built.bundle["teacher"]
    student.train_only([LOW])
    add_lora(student, LoraConfig(rank=2))
    assert {name.partition(".")[0] for name, p in student.named_parameters() if ".lora_" in name} == {LOW}
    assert {name.partition(".")[0] for name, p in student.named_parameters() if p.requires_grad} == {LOW}
    assert built.adapter.noise_ranges(student) == ((0.0, 875.0),)
    assert built.adapter.noise_ranges(teacher) == ((0.0, 875.0), (875.0, 1000.0))
    assert [is_trained_at(built.adapter, student, t) for t in (500.0, 875.0, 1000.0)] == [True, False, False]
    with pytest.raises(ConfigError, match=r"no network 'unet'[\s\S]*transformer, transformer_2"):
        student.train_only(["unet"])


def test_roles_of_one_network_and_of_two_train_together(run_config, tiny, tiny_a14b, raw_batch):
    cfg = run_config({"student": True, "teacher": False}, paths={"teacher": tiny_a14b})
    built = WanFamily().build(cfg)
    built.adapter.on_train_start()
    ranges = [built.adapter.noise_ranges(handle) for handle in built.bundle]
    assert ranges == [((0.0, 1000.0),), ((0.0, 875.0), (875.0, 1000.0))]
    assert list(built.bundle["student"].modules) == [HIGH]
    with calls(built.bundle["teacher"]) as made:
        predict(built, raw_batch, torch.tensor([900.0, 990.0]), "teacher")
    assert made == [(HIGH, 900.0)]


def sampled(path, **how):
    config = how.pop("config", WanConfig(negative_prompt="blurred"))
    sampler = build_sampler(path, config, device=CPU)
    request = ValidationRequest(sampler.handle, None, sampling_steps=4, **how)
    return sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))


def plain(path, adapters=None, **options):
    pipeline = WanPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    for file, more in adapters or ():
        pipeline.load_lora_weights(file.parent, weight_name=file.name, **more)
    options = {"num_inference_steps": 4, **OPTIONS, **options}
    return pipeline("a cat", generator=torch.Generator().manual_seed(3), **options)[0]


def test_many_steps_with_a_guidance_scale_for_each_network_are_the_pipeline_s(tiny_a14b):
    negative = {"negative_prompt": "blurred"}
    for second in (None, 2.0):
        ours = sampled(tiny_a14b, guidance_scale=4.0, guidance_scale_2=second)
        assert torch.equal(ours, plain(tiny_a14b, guidance_scale=4.0, guidance_scale_2=second, **negative))
    config = WanConfig(negative_prompt="blurred", guidance_scale_2=2.0)
    assert torch.equal(sampled(tiny_a14b, guidance_scale=4.0, config=config), ours)
    # The pipeline guides neither network where the first scale is 1: a configured second one then stays out.
    unguided = sampled(tiny_a14b, guidance_scale=1.0, config=config)
    assert torch.equal(unguided, plain(tiny_a14b, guidance_scale=1.0))
    with pytest.raises(ConfigError, match="guidance scales 1 and 3"):
        sampled(tiny_a14b, guidance_scale=1.0, guidance_scale_2=3.0)


@pytest.fixture
def trained(tiny_a14b):
    """Weights that are not the base's, of both networks."""
    generator = torch.Generator().manual_seed(9)
    return {
        network: {
            name: value + 0.05 * torch.randn(value.shape, generator=generator)
            for name, value in load_transformer(tiny_a14b, dtype=torch.float32, device=CPU, name=network)
            .state_dict()
            .items()
        }
        for network in (HIGH, LOW)
    }


def test_an_export_holds_both_networks_and_the_boundary(tiny_a14b, trained, tmp_path):
    out = tmp_path / "out"
    export_pipeline(tiny_a14b, out, trained, pipeline_config=WanConfig(), student_schedule=None)
    assert json.loads((out / "model_index.json").read_text())["boundary_ratio"] == 0.875
    assert open_folder(str(out), where="x").networks == (HIGH, TRANSFORMER_2)
    pipeline = WanPipeline.from_pretrained(out)
    for network, state in trained.items():
        again = getattr(pipeline, network).state_dict()
        assert all(torch.equal(again[name], value) for name, value in state.items())
    assert torch.equal(sampled(str(out), guidance_scale=3.0), plain(out, guidance_scale=3.0, negative_prompt="blurred"))
    with pytest.raises(CheckpointError, match="holds the modules transformer\n"):
        export_pipeline(
            tiny_a14b, tmp_path / "no", {HIGH: trained[HIGH]}, pipeline_config=WanConfig(), student_schedule=None
        )


def test_a_few_step_student_s_export_makes_the_same_latents_in_plain_diffusers(tiny_a14b, trained, tmp_path):
    schedule = FewStepSchedule.from_denoising_steps([1000, 750, 500, 250], warp=timestep_shift(3.0, 1000))
    out = tmp_path / "out"
    notes = export_pipeline(
        tiny_a14b, out, trained, pipeline_config=WanConfig(), student_schedule=lambda warp: schedule
    )
    assert notes == ["sample it with WanPipeline(num_inference_steps=4, guidance_scale=1.0)"]
    sampler = build_sampler(str(out), WanConfig(), device=CPU)
    request = ValidationRequest(sampler.handle, None, sampler_kind="ode", sampling_timesteps=sampler.student.timesteps)
    ours = sampler.sampler.sample_latents(request, PROMPT, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, plain(out, guidance_scale=1.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("ratio", "flow_shift"), [(0.875, 3.0), (0.9, 3.0), (0.9, 5.0)])
def test_an_export_tells_where_plain_diffusers_calls_the_other_network(tiny_a14b, tmp_path, ratio, flow_shift):
    """At shift 3 and a boundary of 0.9 a step is exactly on it, and the fitted schedule is as exact as float32."""
    folder = replace(open_folder(tiny_a14b, where="x"), boundary_ratio=ratio)

    def schedule(warp):
        return FewStepSchedule.from_denoising_steps([1000, 750, 500, 250], warp=warp)

    settings, notes = scheduler_of_export(folder, WanConfig(flow_shift=flow_shift), schedule)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(settings)
    scheduler.set_timesteps(4)
    plain = [bool(t >= ratio * 1000) for t in scheduler.timesteps]
    own = [t >= ratio * 1000 for t in schedule(timestep_shift(flow_shift, 1000)).timesteps]
    differing = [f"step {n} is" for n, (one, other) in enumerate(zip(plain, own, strict=True), 1) if one != other]
    assert [note[: len("step 2 is")] for note in notes[1:]] == differing
    assert differing in ([], ["step 2 is"])
    assert not differing or (ratio, flow_shift) == (0.9, 3.0)


def test_adapters_are_a_file_for_each_network(run_config, tiny_a14b, tmp_path, random_adapters):
    pytest.importorskip("peft")
    student = build(run_config, tiny_a14b).bundle["student"]
    lora = LoraConfig(rank=2, alpha=1.0)
    add_lora(student, lora)
    adapters = random_adapters(student)
    notes = export_lora(tiny_a14b, tmp_path / "both", adapters, lora=lora)
    files = [
        tmp_path / "both" / name
        for name in ("pytorch_lora_weights.safetensors", f"pytorch_lora_weights_{LOW}.safetensors")
    ]
    assert sorted(files) == sorted((tmp_path / "both").iterdir())
    assert ["load_into_transformer_2=True" in note for note in notes] == [False, True]
    loaded = plain(tiny_a14b, [(files[0], {}), (files[1], {"load_into_transformer_2": True})], guidance_scale=1.0)
    merged = {}
    for name in (HIGH, LOW):
        merged[name] = load_transformer(tiny_a14b, dtype=torch.float32, device=CPU, name=name).state_dict()
        for key, down in adapters[name].items():
            if ".lora_A." in key:
                up = adapters[name][key.replace("lora_A", "lora_B")]
                merged[name][f"{key.partition('.lora_A')[0]}.weight"] += 0.5 * up @ down
    export_pipeline(tiny_a14b, tmp_path / "merged", merged, pipeline_config=WanConfig(), student_schedule=None)
    torch.testing.assert_close(loaded, plain(tmp_path / "merged", guidance_scale=1.0), atol=1e-4, rtol=1e-4)
    # Of a run that trained one network there is one file.
    export_lora(tiny_a14b, tmp_path / "low", {HIGH: {}, LOW: adapters[LOW]}, lora=lora)
    (only,) = (tmp_path / "low").iterdir()
    with safe_open(only, framework="pt") as one, safe_open(files[1], framework="pt") as other:
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in other.keys())  # noqa: SIM118 - no iterable
