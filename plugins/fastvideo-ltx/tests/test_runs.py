"""LTX-Video with every method through the real commands: preprocess, train, go on, sample, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import LTXPipeline
from safetensors.torch import load_file

from fastvideo_core.cli.main import main
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import FewStepSchedule
from fastvideo_data.video_files import probe, write_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import build_sampler
from fastvideo_ltx.layout import TokenLayout, unpack_video
from fastvideo_testing.runs import build_run

pytest.importorskip("fastvideo_finetune", reason="runs of every method: beside core alone there is none")
pytest.importorskip("fastvideo_dmd2", reason="runs of every method: beside core alone there is none")

HEIGHT, WIDTH, FRAMES = 64, 96, 9
SIZE = ("--height", HEIGHT, "--width", WIDTH, "--num-frames", FRAMES)
RUN_SIZE = {"num_height": HEIGHT, "num_width": WIDTH, "num_frames": FRAMES}
DMD2_ROLES = {"student": True, "teacher": False, "critic": True}
DMD2 = {"generator_update_interval": 2, "dmd_denoising_steps": [999, 500, 0], "real_score_guidance_scale": 2.0}
RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {"method_config": {"timestep_sampling": "shifted_logit_normal"}},
    "simulate": {"method_config": {**DMD2, "rollout_mode": "simulate", "warp_denoising_step": True}},
    "data_latent": {"method_config": {**DMD2, "rollout_mode": "data_latent"}, "sampler_kind": "sde"},
}


@pytest.fixture(scope="module")
def data(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of noise at 20 frames per second, preprocessed by the real command."""
    root = tmp_path_factory.mktemp("clips")
    for index in range(4):
        frames = np.random.default_rng(index).integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
        (root / "in").mkdir(exist_ok=True)
        write_video(root / "in" / f"{index}.mp4", frames, 20.0)
        (root / "in" / f"{index}.txt").write_text(f"clip {index}\n", encoding="utf-8")
    command = ["preprocess", "--family", "ltx", "--model", tiny, "--input", root / "in", "--output", root / "data"]
    assert main([str(part) for part in (*command, *SIZE, "--fps-policy", "keep")]) == 0
    return root / "data"


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> None:
        assert main([str(argument) for argument in arguments]) == 0

    return run


def _run(recipe: str, tiny: str, data: Path, output_dir: Path, *, steps: int) -> dict[str, Any]:
    method = "finetune" if recipe == "finetune" else "dmd2"
    roles = {"student": True} if method == "finetune" else DMD2_ROLES
    settings = RECIPES[recipe]
    return {
        "recipe": {"family": "ltx", "method": method},
        "roles": {name: {"path": tiny, "trainable": trainable} for name, trainable in roles.items()},
        "training": {
            "seed": 7,
            "output_dir": str(output_dir),
            "data_path": str(data),
            "max_train_steps": steps,
            "train_batch_size": 2,
            "learning_rate": 1e-2,
            "training_cfg_rate": 0.3,
            "training_state_checkpointing_steps": 2,
            **RUN_SIZE,
        },
        "pipeline_config": {"first_frame_probability": 0.5, "sampler_kind": settings.get("sampler_kind", "ode")},
        "method_config": settings["method_config"],
        "callbacks": {"ema": {"decay": 0.5}},
    }


def _write(path: Path, run: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    return path


def _weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("recipe", RECIPES)
def test_train_sample_export(distill, tiny, data, tmp_path, recipe):
    distill(_write(tmp_path / "run.yaml", _run(recipe, tiny, data, tmp_path / "run", steps=2)))
    stored = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert stored["pipeline_config"]["shift_tokens"] == 12

    steps = ("--steps", 2) if recipe == "finetune" else ()
    distill("sample", tmp_path / "run", "--prompt", "a cat", *steps, "--out", tmp_path / "videos")
    info = probe(tmp_path / "videos" / "00.mp4")
    assert (info.frames, info.width, info.height, info.fps) == (FRAMES, WIDTH, HEIGHT, 25)

    distill("export", tmp_path / "run", tmp_path / "exported")
    before, after = _weights(tiny), _weights(tmp_path / "exported")
    assert before.keys() == after.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]
    if recipe == "data_latent":
        return  # sde: diffusers draws its own noise
    pipeline = LTXPipeline.from_pretrained(tmp_path / "exported")
    pipeline.set_progress_bar_config(disable=True)
    options = {"height": HEIGHT, "width": WIDTH, "num_frames": FRAMES, "num_inference_steps": 2}
    generator = torch.Generator().manual_seed(3)
    plain = pipeline("a cat", generator=generator, guidance_scale=1.0, output_type="latent", **options).frames
    sampler = build_sampler(str(tmp_path / "exported"), LtxConfig(shift_tokens=12), device=torch.device("cpu"))
    how: dict[str, Any] = {"sampling_steps": 2}
    if recipe == "simulate":
        warp = sampler.shift_and_clamp_timestep
        levels = FewStepSchedule.from_denoising_steps(DMD2["dmd_denoising_steps"], warp=warp).timesteps
        how = {"sampling_timesteps": levels, "sampler_kind": "ode"}
    prompt = ValidationPrompt("a cat", height=HEIGHT, width=WIDTH, num_frames=FRAMES)
    request = ValidationRequest(sampler.handle, tmp_path, **how)
    ours = sampler.sampler.sample_latents(request, prompt, torch.Generator().manual_seed(3))
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_and_two_more_are_four_steps(distill, tiny, data, tmp_path, recipe):
    distill(_write(tmp_path / "whole.yaml", _run(recipe, tiny, data, tmp_path / "whole", steps=4)))
    distill(_write(tmp_path / "half.yaml", _run(recipe, tiny, data, tmp_path / "parts", steps=2)))
    rest = _write(tmp_path / "rest.yaml", _run(recipe, tiny, data, tmp_path / "parts", steps=4))
    distill(rest, "--resume", "latest")
    for kind in ("raw", "ema"):
        for run in ("whole", "parts"):
            distill("export", tmp_path / run, tmp_path / f"{run}-{kind}", "--weights", kind)
        one, other = _weights(tmp_path / f"whole-{kind}"), _weights(tmp_path / f"parts-{kind}")
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_the_student_s_training_sample_is_the_validation_video_of_the_same_noise(
    tiny, data, tmp_path, monkeypatch, kind
):
    run = _run("simulate", tiny, data, tmp_path / "run", steps=2)
    run["training"]["train_batch_size"] = 1
    run["pipeline_config"] = {"sampler_kind": kind, "fps": 25.0}
    method = build_run(tmp_path, run).method
    method.on_train_start()
    last = len(method.schedule) - 1
    monkeypatch.setattr(method, "exit_index", lambda iteration: last)
    sampler = build_sampler(tiny, LtxConfig(sampler_kind=kind, shift_tokens=12), device=torch.device("cpu"))
    text = sampler.sampler.prompts.get("a cat")
    batch = method.prepare_batch({"text_embedding": text[None]}, latents_source="zeros")
    with torch.no_grad():
        noisy, t = method.student_input(batch, 1)
        x0 = method.student_sample(noisy, t, batch)

    streams = RandomStreams(7)
    noise = torch.randn(1, 12, 128, generator=streams.local("student_noise"))
    monkeypatch.setattr(sampler.sampler, "initial_noise", lambda layout, generator: noise)
    request = ValidationRequest(
        method.student, tmp_path, sampler_kind=kind, sampling_timesteps=method.schedule.timesteps
    )
    prompt = ValidationPrompt("a cat", height=HEIGHT, width=WIDTH, num_frames=FRAMES)
    sampled = sampler.sampler.sample_latents(request, prompt, streams.local("rollout_noise"))
    assert torch.equal(x0, sampled)
    assert unpack_video(sampled, TokenLayout(2, 2, 3)).shape == (1, 128, 2, 2, 3)
