"""What DMD2 logs, by hand, on the toy family."""

from dataclasses import replace

import pytest
import torch

from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter
from fastvideo_core.errors import ContractError
from fastvideo_dmd2.losses import variation_per_sample
from fastvideo_testing.runs import build_run, toy_family

from .test_method import run_of

X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.4]])
NOISE = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.1, -1.3]])
T = torch.tensor([50.0, 120.0, 999.0])


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def fixed(folder, monkeypatch, loss_weight=None):
    method = build_run(folder, run_of(folder, method={"real_score_guidance_scale": 1.0})).method
    monkeypatch.setattr(method, "noise_like", lambda latents, stream: NOISE)
    monkeypatch.setattr(method, "score_timesteps", lambda size, stream: T)
    return method, replace(method.prepare_batch({"vae_latent": X + 100}), loss_weight=loss_weight)


def x0_of(handle):
    sigma = T[:, None] / 1000
    x_t = (1 - sigma) * X + sigma * NOISE
    with torch.no_grad():
        return x_t - sigma * handle.modules["transformer"](x_t, T / 1000, torch.ones(3, 1))


@pytest.mark.parametrize("weight", [None, torch.tensor([[1.0, 0.0], [0.5, 2.0], [1.0, 1.0]])], ids=["", "weighted"])
def test_the_student_s_metrics_are_those_of_its_scores_and_samples(tmp_path, monkeypatch, weight):
    method, batch = fixed(tmp_path, monkeypatch, weight)
    _, _, metrics = method.student_phase(X.clone().requires_grad_(), batch)
    real, fake = x0_of(method.teacher), x0_of(method.critic)
    w = torch.ones_like(X) if weight is None else weight
    share = w / w.sum(1, keepdim=True)
    assert metrics["dmd/score_distance"].item() == pytest.approx((share * (fake - real).abs()).sum(1).mean().item())
    assert metrics["dmd/normaliser"].item() == pytest.approx((share * (X - real).abs()).sum(1).mean().item())
    assert metrics["student_x0/mean"].item() == pytest.approx(2.5 / 6)
    assert metrics["student_x0/std"].item() == pytest.approx((0.75 + 0.85 + 1.05) / 3)
    assert metrics["student_x0/variation"].item() == pytest.approx((0.75 + 0.85 + 1.05) / 3)
    assert metrics["score_timestep"].tolist() == pytest.approx([1 / 3, 1 / 3, *[0] * 7, 1 / 3])
    assert "student_timestep" not in metrics


def test_the_critic_s_metrics_tell_its_timesteps(tmp_path, monkeypatch):
    method, batch = fixed(tmp_path, monkeypatch)
    _, _, metrics = method.critic_phase(X, batch)
    assert metrics["critic_timestep"].tolist() == pytest.approx([1 / 3, 1 / 3, *[0] * 7, 1 / 3])


def test_every_iteration_tells_where_its_rollout_ended(tmp_path):
    runtime = build_run(tmp_path, run_of(tmp_path, method={"dmd_denoising_steps": [999, 600, 200, 0]}))
    method, batches = runtime.method, iter(runtime.dataloader)
    seen = set()
    for iteration in range(1, 25):
        index = method.exit_index(iteration)
        metrics = [measured for _, _, measured in method.single_train_step(next(batches), iteration)]
        merged = {key: value for phase in metrics for key, value in phase.items()}
        assert merged["rollout/exit_step"] == index + 1
        assert merged["rollout/exit_timestep"] == [1000.0, 600.0, 200.0][index]
        seen.add(index)
    assert seen == {0, 1, 2}
    means = runtime.method.exit_metrics(torch.tensor([1000.0, 600.0, 200.0, 200.0]))
    assert means == {"rollout/exit_step": 2.25, "rollout/exit_timestep": 500.0}


def test_a_collapse_to_solid_colours_shows_in_the_variation_whichever_dim_the_channels_are_in():
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(4, 16, 3, 8, 8, generator=generator)
    assert variation_per_sample(healthy).tolist() == pytest.approx([1.0] * 4, abs=0.25)
    colours = torch.randn(4, 16, 1, 1, 1, generator=generator)
    solid = colours.expand(4, 16, 3, 8, 8)
    assert solid.flatten(1).std(dim=1).min() > 0.5  # which the deviation over everything does not show
    assert variation_per_sample(solid).max() < 1e-6
    assert variation_per_sample(solid.flatten(2).transpose(1, 2)).max() < 1e-6  # tokens, channels last
    nearly = solid + 0.01 * healthy
    assert 0 < variation_per_sample(nearly).max() < 0.02
    still = healthy[:, :, :1].expand(4, 16, 3, 8, 8)
    assert variation_per_sample(still).min() > 0.5  # a clip without motion is no collapse
    assert variation_per_sample(healthy[:, :, :1]).min() > 0.5  # an image


def test_a_family_with_another_noise_axis_is_refused(tmp_path, monkeypatch):
    runtime_init = FlowMatchingAdapter.__init__

    def short_axis(self, flow_shift, num_train_timesteps=100):
        runtime_init(self, flow_shift, 100)

    monkeypatch.setattr(FlowMatchingAdapter, "__init__", short_axis)
    with pytest.raises(ContractError, match="num_train_timesteps is 100; dmd_denoising_steps counts on 1000"):
        build_run(tmp_path, run_of(tmp_path))
