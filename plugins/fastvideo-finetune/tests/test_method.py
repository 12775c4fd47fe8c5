"""Fine-tuning on the toy family."""

import pytest
import torch

from fastvideo_core.errors import ConfigError
from fastvideo_testing.runs import build_run, load_config, toy_family
from fastvideo_testing.toy import ExactNetwork, Mixture


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def run_of(folder, *, method=None, training=None, trainable=True):
    return {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "org/base", "trainable": trainable}},
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 400,
            "train_batch_size": 256,
            "learning_rate": 1e-2,
            **(training or {}),
        },
        "method_config": method or {},
        "pipeline_config": {"num_samples": 65536, "width": 32},
    }


def test_the_exact_velocity_of_gaussian_data_reaches_the_known_floor(tmp_path):
    """Oracle 5: the least possible loss at uniform t is E[var(v | x_t)], pi * s / 2 for data N(m, s^2)."""
    method = build_run(tmp_path, run_of(tmp_path)).method
    mean, std = 1.7, 0.6
    generator = torch.Generator().manual_seed(0)
    clean = mean + std * torch.randn(200_000, 1, generator=generator)
    noise = torch.randn(200_000, 1, generator=generator)
    t = 1000 * torch.rand(200_000, generator=generator)

    method.student.modules["transformer"] = ExactNetwork(Mixture(means=((mean,),), std=std))
    batch = method.prepare_batch({"vae_latent": clean})
    loss = method.loss_at(batch, noise, t).item()
    assert loss == pytest.approx(torch.pi * std / 2, rel=0.01)


def test_training_on_gaussian_data_approaches_the_floor(tmp_path):
    runtime = build_run(tmp_path, run_of(tmp_path))
    runtime.train()
    import json

    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines]
    assert len(losses) == 400
    floor = torch.pi * 0.6 / 2
    assert sum(losses[:5]) / 5 > 2 * floor
    assert floor * 0.9 < sum(losses[-50:]) / 50 < floor * 1.1


def test_captions_are_dropped_anew_each_time_at_the_configured_rate(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path, training={"training_cfg_rate": 0.25})).method
    raw = {"vae_latent": torch.zeros(2000, 2)}
    first = method.prepare_batch(raw).conditioning["condition"]
    second = method.prepare_batch(raw).conditioning["condition"]
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(first, second)


def test_the_loss_weighting_is_separate_from_the_sampling(tmp_path):
    plain = build_run(tmp_path, run_of(tmp_path)).method
    weighted = build_run(tmp_path, run_of(tmp_path, method={"loss_weighting": "sigma_sqrt"})).method
    batch = plain.prepare_batch({"vae_latent": torch.ones(8, 2)})
    noise, t = torch.zeros(8, 2), torch.full((8,), 500.0)
    assert weighted.loss_at(batch, noise, t).item() == pytest.approx(4 * plain.loss_at(batch, noise, t).item())


def test_the_log_tells_the_noise_levels_and_the_latents(tmp_path, monkeypatch):
    method = build_run(tmp_path, run_of(tmp_path)).method
    monkeypatch.setattr(method, "sample_timesteps", lambda size: torch.tensor([0.0, 120.0, 950.0, 1000.0]))
    raw = {"vae_latent": torch.tensor([[0.0, 2.0], [1.0, 5.0], [-1.0, 1.0], [3.0, 3.0]])}
    _, _, metrics = method.single_train_step(raw, 1)
    assert metrics["timestep"].tolist() == [0.25, 0.25, 0, 0, 0, 0, 0, 0, 0, 0.5]
    assert metrics["data_x0/mean"].item() == 1.75
    assert metrics["data_x0/std"].item() == 1.0


def test_a_frozen_student_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"roles\.student\.trainable: the student of finetune is not trainable"):
        load_config(tmp_path, run_of(tmp_path, trainable=False))


def test_an_unknown_method_option_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(ConfigError, match="timestep_sampling"):
        load_config(tmp_path, run_of(tmp_path, method={"timestep_samplin": "uniform"}))
