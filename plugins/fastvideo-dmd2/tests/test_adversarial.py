"""The adversarial term: closed forms of its losses, and who is trained by it."""

import math

import pytest
import torch
from torch import nn

from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.errors import ConfigError
from fastvideo_core.testing.runs import build_run, load_config, toy_family
from fastvideo_dmd2.adversarial import DiscriminatorHeads, approximate_r1, discriminator_loss, generator_loss

from .test_method import phases, run_of


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def built(folder, **method):
    runtime = build_run(folder, run_of(folder, method={"adversarial_weight": 0.1, **method}))
    return runtime.method, iter(runtime.dataloader)


def with_gradients(method):
    return {h.name for h in method.bundle if any(p.grad is not None for _, p in h.named_parameters())}


def test_undecided_logits_cost_log_2_each():
    zeros = torch.zeros(4)
    assert generator_loss(zeros).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))


def test_the_generator_wants_high_logits_and_the_discriminator_low_ones_on_fakes():
    logit = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(generator_loss(logit), logit)[0] < 0
    assert torch.autograd.grad(discriminator_loss(torch.zeros(1), logit), logit)[0] > 0
    assert torch.autograd.grad(discriminator_loss(logit, torch.zeros(1)), logit)[0] < 0


def test_the_approximate_r1_is_the_squared_gradient_norm_whatever_sigma_is():
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)  # D(x) = slope . x, so |grad D|^2 = 25
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (0.01, 0.1):
        r1 = approximate_r1(torch.zeros(200_000, dtype=torch.float64), (sigma * noise) @ slope, sigma)
        assert r1.item() == pytest.approx(25.0, rel=0.02)


def test_heads_give_one_logit_per_sample_and_treat_samples_alone():
    heads = DiscriminatorHeads([8, 8])
    features = [torch.randn(3, 5, 8), torch.randn(3, 2, 8)]
    together = heads(features)
    assert together.shape == (3,)
    torch.testing.assert_close(heads([feature[1:2] for feature in features]), together[1:2])


@pytest.mark.parametrize("features", ["critic", "teacher"])
def test_each_phase_trains_its_own_roles(tmp_path, features):
    method, batches = built(tmp_path, adversarial_features=features)
    steps = phases(method, next(batches), 2)
    assert set(next(steps)) == {"total_loss", "student_loss", "generator_loss"}
    assert with_gradients(method) == {"student"}
    method.optimizers_zero_grad(2)
    next(steps)
    assert with_gradients(method) == {"critic"}
    method.optimizers_zero_grad(2)
    assert set(next(steps)) == {"total_loss", "discriminator_loss"}
    assert with_gradients(method) == ({"critic", "discriminator"} if features == "critic" else {"discriminator"})


def test_the_student_s_gradient_is_that_of_the_weighted_sum_of_both_terms(tmp_path):
    method, batches = built(tmp_path, adversarial_weight=0.5)
    batch = method.prepare_batch(next(batches))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
    state = method.rng.state_dict()

    def gradient(weight):
        method.rng.load_state_dict(state)
        method.config = method.config.model_copy(update={"adversarial_weight": weight})
        loss = method.student_phase(x, batch)[0]["total_loss"]
        return torch.autograd.grad(loss, x)[0]

    without, half, full = gradient(0.0), gradient(0.5), gradient(1.0)
    torch.testing.assert_close(full - without, 2 * (half - without))
    method.rng.load_state_dict(state)
    method.student_phase(x, batch)  # the streams stand where the term draws; redraw its own and differentiate directly
    method.rng.load_state_dict(state)
    term = method.adversarial
    t = term.sample_timesteps(4, "generator")
    noisy = method.adapter.add_noise(x, term.noise_like(x, "generator_noise"), t)
    expected = torch.autograd.grad(generator_loss(term._logits(noisy, t, batch)), x)[0]
    torch.testing.assert_close(full - without, expected)


def test_descending_the_generator_loss_moves_samples_towards_data(tmp_path):
    """Heads that were trained to tell 1.7 from 0 pull a sample at 0 upwards."""
    method, batches = built(tmp_path, adversarial_features="teacher")
    raw = next(batches)
    x = torch.zeros(4, 2)
    for _ in range(200):
        loss, _ = method.adversarial.discriminator(x, method.prepare_batch(raw))
        loss.backward()
        method.adversarial.heads.optimizers["adamw"].step()
        method.optimizers_zero_grad(1)
    _, direction = method.adversarial.generator(x, method.prepare_batch(raw))
    assert (-direction).mean() > 0


def test_the_heads_are_trained_checkpointed_and_resumed(tmp_path):
    run = run_of(tmp_path, method={"adversarial_weight": 0.1, "r1_weight": 1.0}, training={"max_train_steps": 4})
    build_run(tmp_path, run).train()
    assert describe(tmp_path / "out").roles["discriminator"] == ("heads",)
    run["training"] |= {"max_train_steps": 6, "resume_from_checkpoint": "latest"}
    resumed = build_run(tmp_path, run)
    resumed.train()
    run["training"] |= {"output_dir": str(tmp_path / "whole"), "resume_from_checkpoint": None}
    whole = build_run(tmp_path, run)
    whole.train()
    for (name, a), (_, b) in zip(
        whole.method.bundle["discriminator"].named_parameters(),
        resumed.method.bundle["discriminator"].named_parameters(),
        strict=True,
    ):
        assert torch.equal(a, b), name


def test_the_heads_move_in_every_iteration(tmp_path):
    method, _ = built(tmp_path)
    assert [method.adversarial.heads in method.due_roles(iteration) for iteration in (1, 2)] == [True, True]


@pytest.mark.parametrize(("weight", "source"), [(0.0, "zeros"), (0.1, "data")])
def test_simulate_needs_data_latents_only_with_the_term(tmp_path, monkeypatch, weight, source):
    method, batches = built(tmp_path, adversarial_weight=weight)
    asked = []
    prepare = method.adapter.prepare_batch
    monkeypatch.setattr(
        method.adapter,
        "prepare_batch",
        lambda raw, **options: asked.append(options["latents_source"]) or prepare(raw, **options),
    )
    list(phases(method, next(batches), 1))
    assert asked == [source]


def test_its_options_without_its_weight_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"method_config\.r1_weight: does nothing without adversarial_weight"):
        load_config(tmp_path, run_of(tmp_path, method={"r1_weight": 1.0}))


def test_the_term_is_off_by_default(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path)).method
    assert method.adversarial is None
    assert "discriminator" not in method.bundle
    assert isinstance(method.role_modules, nn.ModuleDict)
