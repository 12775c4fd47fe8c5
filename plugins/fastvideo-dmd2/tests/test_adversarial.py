"""The adversarial term: closed forms of its losses, and who is trained by it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.errors import ConfigError
from fastvideo_dmd2.adversarial import DiscriminatorHeads, approximate_r1, fake_loss, generator_loss, real_loss
from fastvideo_testing.runs import build_run, load_config, toy_family

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
    assert real_loss(zeros).item() == fake_loss(zeros).item() == pytest.approx(math.log(2))


def test_the_generator_wants_high_logits_and_the_discriminator_low_ones_on_fakes():
    logit = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(generator_loss(logit), logit)[0] < 0
    assert torch.autograd.grad(fake_loss(logit), logit)[0] > 0
    assert torch.autograd.grad(real_loss(logit), logit)[0] < 0


def test_the_approximate_r1_is_the_squared_gradient_norm_times_sigma_squared():
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)  # D(x) = slope . x, so |grad D|^2 = 25
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (0.01, 0.1):
        r1 = approximate_r1(torch.zeros(200_000, dtype=torch.float64), (sigma * noise) @ slope)
        assert r1.item() == pytest.approx(25.0 * sigma**2, rel=0.02)


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
    for part in ("discriminator_fake_loss", "discriminator_real_loss"):
        assert set(next(steps)) == {"total_loss", part}
        assert with_gradients(method) == ({"critic", "discriminator"} if features == "critic" else {"discriminator"})
        method.optimizers_zero_grad(2)
    assert list(steps) == []


# --- by hand ------------------------------------------------------------------------------------------------------

X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.4]])
DATA = torch.tensor([[1.5, 1.1], [2.4, 1.9], [0.8, 2.2]])
T = torch.tensor([100.0, 500.0, 900.0])
NOISES = {
    name: torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(
        ("generator_noise", "discriminator_fake_noise", "discriminator_real_noise", "r1_noise"), start=1
    )
}
R1_SIGMA = 0.3


def fixed(folder, *, loss_weight=None, **method_config):
    """A method whose term noises with `NOISES` at `T`; its term, and its batch of `DATA`."""
    method, _ = built(folder, **method_config)
    method.adversarial = replace(
        method.adversarial, sample_timesteps=lambda size, stream: T, noise_like=lambda like, stream: NOISES[stream]
    )
    return method, replace(method.prepare_batch({"vae_latent": DATA}), loss_weight=loss_weight)


def noised(x, stream):
    sigma = T[:, None] / 1000
    return (1 - sigma) * x + sigma * NOISES[stream]


def logits(method, noisy):
    """D of noisy samples, from the scorer's layers and the heads."""
    layers = method.adversarial.scorer.modules["transformer"].net[:-1]
    hidden = layers(torch.cat([noisy, T[:, None] / 1000, torch.ones(3, 1)], dim=1))
    return method.adversarial.heads.modules["heads"]([hidden[:, None]])


def gradients(method):
    found = {
        f"{handle.name}.{name}": p.grad.clone()
        for handle in method.bundle
        for name, p in handle.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    method.optimizers_zero_grad(1)
    return found


@pytest.mark.parametrize("r1_weight", [0.0, 2.0 / R1_SIGMA**2])
@pytest.mark.parametrize("features", ["critic", "teacher"])
def test_the_discriminator_s_gradient_is_that_of_its_loss_by_hand(tmp_path, features, r1_weight):
    method, batch = fixed(
        tmp_path, adversarial_features=features, r1_weight=r1_weight, r1_sigma=R1_SIGMA, discriminator_weight=0.25
    )
    losses, metrics = {}, {}
    for named, outputs, measured in method.discriminator_phases(X, batch):
        method.backward(named, outputs)
        losses |= named
        metrics |= measured
    found = gradients(method)

    real, fake = noised(DATA, "discriminator_real_noise"), noised(X, "discriminator_fake_noise")
    on_real, on_fake = logits(method, real), logits(method, fake)
    r1 = ((on_real - logits(method, real + R1_SIGMA * NOISES["r1_noise"])) ** 2).mean()
    assert r1.item() > 1e-5 * R1_SIGMA**2
    (0.25 * (softplus(-on_real).mean() + softplus(on_fake).mean() + r1_weight * r1)).backward()
    expected = gradients(method)
    assert {name.partition(".")[0] for name in expected} >= {"discriminator"}
    expected = {name: value for name, value in expected.items() if features == "critic" or "discriminator" in name}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")
    assert losses["discriminator_real_loss"].item() == pytest.approx(softplus(-on_real).mean().item())
    assert losses["discriminator_fake_loss"].item() == pytest.approx(softplus(on_fake).mean().item())
    assert metrics["discriminator/real"].item() == pytest.approx(on_real.mean().item())
    assert metrics["discriminator/fake"].item() == pytest.approx(on_fake.mean().item())
    assert ("discriminator_r1_loss" in losses) is (r1_weight > 0)
    if r1_weight:
        assert losses["discriminator_r1_loss"].item() == pytest.approx(r1.item(), rel=1e-4)


def student_gradient(method, batch, weight):
    """With respect to the sample X, at one weight of the term."""
    method.config = method.config.model_copy(update={"adversarial_weight": weight})
    state = method.rng.state_dict()
    x = X.clone().requires_grad_()
    loss = method.student_phase(x, batch, method.adversarial.generator(X, batch))[0]["total_loss"]
    method.rng.load_state_dict(state)
    return torch.autograd.grad(loss, x)[0]


def test_the_student_s_gradient_is_that_of_the_weighted_sum_of_both_terms(tmp_path):
    method, batch = fixed(tmp_path)
    x = X.clone().requires_grad_()
    loss = softplus(-logits(method, noised(x, "generator_noise"))).mean()
    expected = torch.autograd.grad(loss, x)[0]
    assert method.adversarial.generator(X, batch).loss.item() == pytest.approx(loss.item())
    without = student_gradient(method, batch, 0.0)
    assert expected.norm() > 1e-4
    for weight in (0.5, 1.0, 100.0):
        torch.testing.assert_close(
            student_gradient(method, batch, weight) - without, weight * expected, rtol=1e-4, atol=1e-6
        )


def test_the_term_looks_at_the_sample_that_it_then_moves(tmp_path, monkeypatch):
    method, batches = built(tmp_path)
    seen = []
    term, student_phase = method.adversarial, method.student_phase

    class Watched:
        def generator(self, x, batch):
            seen.append(x)
            return term.generator(x, batch)

    def watched_phase(x, batch, realism):
        assert realism is not None
        seen.append(x.detach())
        return student_phase(x, batch, realism)

    monkeypatch.setattr(method, "adversarial", Watched())
    monkeypatch.setattr(method, "student_phase", watched_phase)
    next(method.single_train_step(next(batches), 2))
    assert not seen[0].requires_grad
    assert torch.equal(*seen)


def test_elements_of_weight_zero_are_not_the_discriminator_s_to_judge(tmp_path):
    weight = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    method, batch = fixed(tmp_path, loss_weight=weight)
    pull = method.adversarial.generator(X, batch).value
    assert pull[:, 1].abs().max() == 0
    assert pull[:, 0].abs().min() > 0
    assert (student_gradient(method, batch, 1.0) - student_gradient(method, batch, 0.0))[:, 1].abs().max() == 0
    elsewhere = X + torch.tensor([0.0, 7.0])
    assert torch.equal(method.adversarial.generator(elsewhere, batch).value, pull)
    one, other = (next(method.adversarial.discriminator(x, batch)).loss for x in (X, elsewhere))
    assert torch.equal(one, other)


def test_descending_the_generator_loss_moves_samples_towards_data(tmp_path):
    """Heads that were trained to tell 1.7 from 0 pull a sample at 0 upwards."""
    method, batches = built(tmp_path, adversarial_features="teacher")
    raw = next(batches)
    x = torch.zeros(4, 2)
    for _ in range(200):
        for part in method.adversarial.discriminator(x, method.prepare_batch(raw)):
            part.loss.backward()
        method.adversarial.heads.optimizers["adamw"].step()
        method.optimizers_zero_grad(1)
    direction = method.adversarial.generator(x, method.prepare_batch(raw)).value
    assert (-direction).mean() > 0


# --- the heads' role ------------------------------------------------------------------------------------------------


def test_the_heads_are_clipped_as_the_critic_is(tmp_path):
    run = run_of(tmp_path, method={"adversarial_weight": 0.1}, training={"max_grad_norm": 1.0})
    run["roles"]["critic"]["max_grad_norm"] = 0.01
    method = build_run(tmp_path, run).method
    norms = {h.name: method.max_grad_norm(h.optimizers["adamw"]) for h in method.bundle if h.optimizers}
    assert norms == {"student": 1.0, "critic": 0.01, "discriminator": 0.01}


@pytest.mark.parametrize(("rate", "expected"), [(None, 5e-4), (2e-3, 2e-3), (0.0, 0.0)])
def test_the_heads_learn_at_their_own_rate_else_the_critic_s(tmp_path, rate, expected):
    run = run_of(tmp_path, method={"adversarial_weight": 0.1, "discriminator_learning_rate": rate})
    run["roles"]["critic"]["learning_rate"] = 5e-4
    assert build_run(tmp_path, run).method.learning_rates()["lr/discriminator"] == expected


def test_the_heads_schedule_is_sized_in_iterations(tmp_path):
    run = run_of(tmp_path, method={"adversarial_weight": 0.1}, training={"lr_scheduler": "linear"})
    method = build_run(tmp_path, run).method
    rates = []
    for iteration in range(1, 11):
        method.optimizers_schedulers_step(iteration)
        rates.append(method.learning_rates()["lr/discriminator"])
    assert rates == pytest.approx([1e-3 * (10 - i) / 10 for i in range(1, 11)])


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
