"""Oracle 4 and its kin, through the whole program: the command trains a student of known data, and its samples are judged.

The toy family's teacher is the exact velocity of the data, so that nothing but the method is under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_dmd2 import method
from fastvideo_dmd2.losses import dmd_gradient
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_testing.toy import EXACT, Mixture, ToyConfig, ToyNetwork
from tests.conftest import distill, write_run
from tests.families import ALL_KINDS, tiny_family

__all__ = ["tiny_family"]

PLUGIN = """
from fastvideo_core import register_model
from fastvideo_testing.toy import ToyConfig, build_toy_components
register_model("toy", config=ToyConfig)(build_toy_components)
"""
FOUR_MODES: dict[str, Any] = {
    "masses": [0.4, 0.3, 0.2, 0.1],
    "means": [[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]],
    "std": 0.3,
}
SAMPLES = 20_000


def run_of(data: dict[str, Any], *, steps: int, width: int, depth: int, **method: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "dmd2"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": EXACT, "trainable": False},
            "critic": {"path": "toy/critic", "trainable": True},
        },
        "training": {
            "output_dir": "out",
            "max_train_steps": steps,
            "train_batch_size": 256,
            "learning_rate": 2e-3,
            "betas": [0.0, 0.99],
            "lr_scheduler": "cosine",
            "max_grad_norm": 0,
            "logging_steps": 1000,
        },
        "pipeline_config": {"data": data, "width": width, "depth": depth, "num_samples": 65536},
        "method_config": {"dmd_denoising_steps": [1000], "real_score_guidance_scale": 1.0, **method},
        "callbacks": {"ema": {"decay": 0.995}},
    }


def trained_samples(folder: Path, run: dict[str, Any]) -> Tensor:
    """One-step samples [SAMPLES, D] of the student that the command trains."""
    (folder / "toy.py").write_text(PLUGIN)
    done = distill(write_run(folder / "run.yaml", run), "--plugin", "toy.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    config = ToyConfig.model_validate(describe(folder / "out").config["pipeline_config"])
    student = ToyNetwork(config.data.dim, config.width, config.depth)
    student.load_state_dict(read_role_weights(folder / "out", "student", ema=True)["transformer"])
    noise = torch.randn(SAMPLES, config.data.dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return noise - student(noise, torch.ones(SAMPLES), torch.ones(SAMPLES, 1))


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 64) -> float:
    """Root mean square over directions of the 2-Wasserstein distance of projections of [N, 2] samples."""
    angle = torch.arange(directions) * torch.pi / directions
    directions_2d = torch.stack([angle.cos(), angle.sin()])
    difference = (a @ directions_2d).sort(0).values - (b @ directions_2d).sort(0).values
    return difference.pow(2).mean().sqrt().item()


# --- in seconds: a shorter run in this process, and the same run with a known mistake ------------------------------

GAUSSIAN: dict[str, Any] = {"masses": [1.0], "means": [[1.7, 1.7]], "std": 0.6}


def quick_distance(folder: Path, data: dict[str, Any], *, critic_rate: float | None = None) -> float:
    """Sliced Wasserstein distance of the student's samples to the data after 600 iterations."""
    run = run_of(data, steps=600, width=32, depth=2)
    run["training"] |= {"output_dir": str(folder / "out"), "train_batch_size": 128, "learning_rate": 5e-3}
    run["roles"]["critic"]["learning_rate"] = critic_rate
    run["callbacks"] = {}
    with toy_family():
        runtime = build_run(folder, run)
    runtime.train()
    student = runtime.method.bundle["student"].modules["transformer"]
    noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        samples = noise - student(noise, torch.ones(SAMPLES), torch.ones(SAMPLES, 1))
    mixture = Mixture.model_validate({**data, "masses": tuple(data["masses"])})
    return sliced_wasserstein(samples, mixture.sample(SAMPLES, torch.Generator().manual_seed(2)))


def test_a_student_with_a_learned_critic_comes_close_to_the_data_in_seconds(tmp_path):
    assert quick_distance(tmp_path, GAUSSIAN) < 0.2  # untrained 2.4


@pytest.mark.parametrize("data", [GAUSSIAN, FOUR_MODES], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("mistake", ["frozen critic", "wrong sign"])
def test_a_known_mistake_keeps_the_student_away_from_the_data(tmp_path, monkeypatch, data, mistake):
    if mistake == "wrong sign":
        monkeypatch.setattr(method, "dmd_gradient", lambda x, real, fake, weight: dmd_gradient(x, fake, real, weight))
    assert quick_distance(tmp_path, data, critic_rate=0.0 if mistake == "frozen critic" else None) > 1.0


# --- on every installed family ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_a_critic_that_is_the_teacher_leaves_the_student_alone_and_guidance_does_not(tiny_family, tmp_path, kind):
    """g = x0_critic - x0_teacher is 0 where both are one network and nothing guides the teacher: DMD's fixed point."""
    tiny = tiny_family(kind)
    losses = []
    for scale in (1.0, 3.0):
        folder = tmp_path / str(scale)
        folder.mkdir()
        run = run_of(GAUSSIAN, steps=1, width=8, depth=1, real_score_guidance_scale=scale, generator_update_interval=1)
        run = {name: run[name] for name in ("roles", "training", "method_config")}
        run |= {"recipe": {"family": tiny.family, "method": "dmd2"}}
        for role in run["roles"].values():
            role["path"] = str(tiny.base)
        run["training"] |= {"output_dir": str(folder / "out"), "data_path": str(tiny.data), "train_batch_size": 2}
        run["training"] |= {"logging_steps": 1}
        build_run(folder, run).train()
        line = json.loads((folder / "out" / "metrics.jsonl").read_text())
        losses.append(line["student_loss"])
        assert line["critic_loss"] > 0.1
    assert losses[0] == pytest.approx(0, abs=1e-9)
    assert losses[1] > 1e-6  # random weights hardly listen to the text


# --- with the command, to the end ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gaussian_is_recovered_without_data(tmp_path):
    run = run_of({"masses": [1.0], "means": [[1.7, 1.7]], "std": 0.6}, steps=5000, width=32, depth=2)
    samples = trained_samples(tmp_path, run)
    assert samples.mean(0).tolist() == pytest.approx([1.7, 1.7], abs=0.03)
    assert samples.std(0).tolist() == pytest.approx([0.6, 0.6], abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("rollout_mode", ["simulate", "data_latent"])
def test_the_modes_of_a_mixture_are_recovered_with_their_masses(tmp_path, rollout_mode):
    run = run_of(FOUR_MODES, steps=15_000, width=96, depth=3, rollout_mode=rollout_mode)
    samples = trained_samples(tmp_path, run)
    mixture = Mixture.model_validate({**FOUR_MODES, "masses": tuple(FOUR_MODES["masses"])})
    truth = mixture.sample(SAMPLES, torch.Generator().manual_seed(2))
    nearest = torch.cdist(samples, torch.tensor(mixture.means)).argmin(1)
    masses = torch.bincount(nearest, minlength=4) / SAMPLES
    assert masses.tolist() == pytest.approx(list(mixture.masses), abs=0.03)
    assert sliced_wasserstein(samples, truth) < 0.2  # untrained 1.2; two sets of true samples 0.09


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "solver_steps", "std"),
    [("euler", 48, 0.554), ("euler", 12, 0.431), ("heun", 48, 0.600), ("heun", 12, 0.605)],
)
def test_a_trained_consistency_student_has_the_spread_that_its_teacher_s_solver_leaves(
    tmp_path, solver, solver_steps, std
):
    """Not the data's 0.6: N affine steps of the exact velocity at shift 5 (fastvideo-consistency's test_end_points)."""
    run = run_of(GAUSSIAN, steps=3000, width=32, depth=2)
    run["recipe"]["method"] = "consistency"
    run["roles"].pop("critic")
    run["training"] |= {"output_dir": str(tmp_path / "out"), "learning_rate": 5e-3, "betas": [0.9, 0.99]}
    run["pipeline_config"] |= {"flow_shift": 5.0}
    run["method_config"] = {"solver": solver, "solver_steps": solver_steps, "teacher_guidance_scale": 1.0}
    run["method_config"] |= {"denoising_steps": [1000]}
    with toy_family():
        build_run(tmp_path, run).train()
    student = ToyNetwork(2, 32, 2)
    student.load_state_dict(read_role_weights(tmp_path / "out", "student", ema=True)["transformer"])
    noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        samples = noise - student(noise, torch.ones(SAMPLES), torch.ones(SAMPLES, 1))
    assert samples.mean(0).tolist() == pytest.approx([1.7, 1.7], abs=0.02)
    assert samples.std(0).tolist() == pytest.approx([std, std], abs=0.012)
