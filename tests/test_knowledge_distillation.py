"""The method `kd` on real families: FastVideo's rows as they are, what is missing in them, and how many networks are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.data_set import DataSet
from fastvideo_testing.runs import build_run, resolve_run
from tests.commands import commands
from tests.conftest import trajectory_data, write_run

__all__ = ["commands"]

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"<!-- example: kd.yaml -->\n```yaml\n(.*?)```", re.DOTALL)

TIMES = [1000.0, 937.5, 833.3333, 625.0, 96.1538]
"""Of FastVideo's ODE data sets: steps 0, 12, 24 and 36 of 48 at shift 5; the time of the last step stands with the clean end."""


@pytest.fixture
def run(tiny_wan: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "recipe": {"family": "wan", "method": "kd"},
        "roles": {"student": {"path": str(tiny_wan), "trainable": True}},
        "training": {
            "output_dir": str(tmp_path / "out"),
            "data_path": str(trajectory_data(tmp_path / "data.parquet", TIMES)),
            "max_train_steps": 2,
            "train_batch_size": 2,
        },
        "pipeline_config": {"flow_shift": 5.0},
    }


def stored(data: str, row: int) -> torch.Tensor:
    states: torch.Tensor = DataSet(data).batch([row])["trajectory_latents"]
    return states[0]


@pytest.mark.parametrize("dims", [(), (1,)], ids=["S", "1-S"])
def test_fastvideo_s_rows_load_unchanged_and_are_not_normalised_again(run, tmp_path, dims):
    run["training"]["data_path"] = str(trajectory_data(tmp_path / "rows.parquet", TIMES, dims=dims))
    method = build_run(tmp_path, run).method
    raw = DataSet(run["training"]["data_path"]).batch([3, 5])
    batch = method.prepare_batch(raw, latents_source="trajectory")
    assert batch.trajectory.states.shape == (2, 5, 16, 3, 4, 4)
    assert torch.equal(batch.trajectory.states, raw["trajectory_latents"].reshape(2, 5, 16, 3, 4, 4))
    assert torch.equal(batch.latents, batch.trajectory.states[:, -1])
    assert method.schedule.timesteps == pytest.approx((1000.0, 937.5, 833.3333, 625.0))


def test_the_loss_is_the_distance_of_the_student_s_x0_at_a_state_to_the_end(run, tmp_path):
    method = build_run(tmp_path, run).method
    batch = method.prepare_batch(DataSet(run["training"]["data_path"]).batch([3, 5]), latents_source="trajectory")
    states, t = batch.trajectory.states, torch.tensor([937.5, 625.0])
    inputs = torch.stack([states[0, 1], states[1, 3]])
    x0 = method.adapter.predict_x0(method.student, inputs, t, batch, conditional=True)
    expected = ((x0 - states[:, 4]) ** 2).mean()
    assert method.x0_loss(batch, t).item() == pytest.approx(expected.item(), rel=1e-6)
    v = method.adapter.predict_noise(method.student, inputs, t, batch, conditional=True)
    first = (states[0, 1] - states[0, 2]) / (0.9375 - 0.8333333)
    second = (states[1, 3] - states[1, 4]) / 0.625
    expected = ((v - torch.stack([first, second])) ** 2).mean()
    assert method.velocity_loss(batch, t).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("target", ["x0", "velocity"])
def test_an_iteration_is_one_evaluation_of_the_student(run, tmp_path, target):
    run["method_config"] = {"target": target}
    runtime = build_run(tmp_path, run)
    assert calls_of(runtime) == {"student": [2]}


def test_guidance_is_one_more_of_the_teacher_on_both_halves(run, tiny_wan, latent_data, tmp_path):
    runtime = build_run(tmp_path, guidance_run(run, tiny_wan, latent_data))
    assert calls_of(runtime) == {"student": [2], "teacher": [4]}


def guidance_run(run: dict[str, Any], tiny_wan: Path, latent_data: Path) -> dict[str, Any]:
    teacher = {"path": str(tiny_wan), "trainable": False}
    training = {"data_path": str(latent_data), "validation_guidance_scale": "1"}
    return {
        **run,
        "roles": {**run["roles"], "teacher": teacher},
        "training": {**run["training"], **training},
        "method_config": {"target": "guidance", "teacher_guidance_scale": 3.0},
    }


def calls_of(runtime: Any) -> dict[str, list[int]]:
    """The samples of every call of a network in one iteration, by role."""
    seen: dict[str, list[int]] = {}
    method = runtime.method
    method.on_train_start()
    for handle in method.bundle:
        (network,) = handle.modules.values()
        record = lambda module, args, kwargs, name=handle.name: seen.setdefault(name, []).append(  # noqa: E731
            len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])
        )
        network.register_forward_pre_hook(record, with_kwargs=True)
    method.single_train_step(next(iter(runtime.dataloader)), 1)
    return seen


def test_the_guided_target_is_u_plus_w_c_minus_u(run, tiny_wan, latent_data, tmp_path):
    method = build_run(tmp_path, guidance_run(run, tiny_wan, latent_data)).method
    method.on_train_start()
    batch = method.prepare_batch(DataSet(latent_data).batch([0, 1]))
    noise, t = (
        torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor([300.0, 900.0]),
    )
    noisy = method.adapter.add_noise(batch.latents, noise, t)
    v = {
        conditional: method.adapter.predict_noise(method.student, noisy, t, batch, conditional=conditional)
        for conditional in (True, False)
    }
    # student and teacher have the same weights here: only guidance is between them
    expected = (((v[False] + 3 * (v[True] - v[False])) - v[True]) ** 2).mean()
    assert method.guidance_loss(batch, noise, t).item() == pytest.approx(expected.item(), rel=1e-3)


def test_a_step_that_the_data_does_not_hold_names_those_that_it_does(run, commands, tmp_path):
    run["method_config"] = {"denoising_steps": [1000, 500]}
    commands.works("check", write_run(tmp_path / "run.yaml", run))
    run["method_config"] = {"denoising_steps": [1000, 400]}
    run["training"]["data_path"] = [{"path": run["training"]["data_path"]}] * 2
    said = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert "the trajectories hold no state at timestep 769.231" in said
    assert "1000, 937.5, 833.333, 625" in said
    assert "training.data_path[1].path, batch with sample" in said


def test_a_row_with_other_steps_than_the_first_one_ends_the_run_with_words(run, tmp_path):
    method = build_run(tmp_path, run).method
    raw = DataSet(run["training"]["data_path"]).batch([0, 1])
    raw["trajectory_timesteps"][1, 1] = 900.0
    with pytest.raises(DataError, match=r"no state at timestep 937\.5"):
        method.single_train_step(raw, 1)


def test_data_without_trajectories_is_told_how_to_make_them(run, latent_data, tmp_path):
    run["training"]["data_path"] = str(latent_data)
    with pytest.raises(ConfigError) as raised:
        resolve_run(tmp_path, run)
    said = str(raised.value)
    assert "holds no tensor trajectory_latents" in said
    assert "`fastvideo-distill trajectories` of fastvideo-kd writes one" in said


def test_states_of_another_pipeline_are_refused(run, tmp_path):
    path = trajectory_data(tmp_path / "odd.parquet", TIMES, channels=8)
    run["training"]["data_path"] = str(path)
    with pytest.raises(ConfigError, match="has shape"):
        resolve_run(tmp_path, run)


def test_the_page_s_run_yaml_is_a_run(run, tiny_wan, tmp_path):
    example = yaml.safe_load(EXAMPLE.search((ROOT / "docs/kd.md").read_text(encoding="utf-8"))[1])
    example["roles"]["student"]["path"] = str(tiny_wan)
    example["training"]["data_path"] = run["training"]["data_path"]
    example["pipeline_config"] = run["pipeline_config"]
    assert resolve_run(tmp_path, example).cfg.recipe.method == "kd"
