"""Phased DMD: one network of the student is trained, up to the noise level at which the next one takes its sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import Ranges
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion import flow
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import register_model
from fastvideo_testing.runs import build_run, load_config, resolve_run, toy_family
from fastvideo_testing.toy import ToyAdapter, ToyConfig, ToyFamily

HIGH, LOW, BOUNDARY = "transformer", "transformer_2", 600.0
X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.4]])
NOISE = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.1, -1.3]])
T = torch.tensor([601.0, 700.0, 990.0])


class TwoNetworks(ToyAdapter):
    """A network from BOUNDARY up, and one below. Its networks regress half of the velocity: nobody else may know."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        ranges = {LOW: (0.0, BOUNDARY), HIGH: (BOUNDARY, 1000.0)}
        return tuple(one for name, one in ranges.items() if not handle.trainable or handle.may_train(name))

    def predict_noise(self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        called = handle.modules[HIGH if float(t.min()) >= BOUNDARY else LOW]
        return super().predict_noise(RoleHandle(handle.name, {HIGH: called}), noisy_latents, t, *args, **kwargs)

    def prediction_target(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return super().prediction_target(clean_latents, noise, t) / 2

    def predict_x0(self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        half = self.predict_noise(handle, noisy_latents, t, *args, **kwargs)
        return flow.x0_from_velocity(noisy_latents, 2 * half, self.sigma(t))


class TwoNetworksFamily(ToyFamily):
    __module__ = "test_phased"  # registered classes have importable names, and this folder's is none

    def build(self, cfg: Any) -> Any:
        components = super().build(cfg)
        other = super().build(cfg.with_roles({name: {"path": f"{role.path} low"} for name, role in cfg.roles.items()}))
        for handle in components.bundle:
            handle.modules[LOW] = other.bundle[handle.name].modules[HIGH]
        components.adapter.__class__ = TwoNetworks
        return components


@pytest.fixture(autouse=True)
def _families() -> Any:
    with toy_family():
        register_model("two", config=ToyConfig)(TwoNetworksFamily)
        yield


def run_of(folder: Path, network: str | None = HIGH, *, student: Any = None, family: str = "two", **method: Any) -> Any:
    chosen = {} if network is None else {"train_modules": [network]}
    return {
        "recipe": {"family": family, "method": "dmd2"},
        "roles": {
            "student": {"path": "org/student", "trainable": True, **chosen, **(student or {})},
            "teacher": {"path": "org/teacher", "trainable": False},
            "critic": {"path": "org/critic", "trainable": True},
        },
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 6,
            "train_batch_size": 3,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
        },
        "pipeline_config": {"sampler_kind": method.pop("sampler_kind", "ode")},
        "method_config": {
            "phased": True,
            "dmd_denoising_steps": [1000, 750, 500, 250],
            "generator_update_interval": 1,
            "real_score_guidance_scale": 1.0,
            **method,
        },
    }


def built(folder: Path, *arguments: Any, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return build_run(folder, run_of(folder, *arguments, **options)).method


def batch_of(method: Any) -> Any:
    return method.prepare_batch({"vae_latent": torch.zeros(3, 2)})


def test_a_phase_ends_where_the_next_network_takes_the_sample(tmp_path: Path) -> None:
    """Of the networks above and below 600 the second one is called first at 500."""
    assert built(tmp_path / "high").level == 0.5
    assert built(tmp_path / "low", LOW).level == 0
    assert built(tmp_path / "other", dmd_denoising_steps=[1000, 599, 250]).level == 0.599


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_the_student_s_output_is_moved_to_the_level_as_sampling_goes_there(tmp_path: Path, kind: str) -> None:
    method = built(tmp_path, sampler_kind=kind)
    batch, t = batch_of(method), torch.tensor([1000.0, 750.0, 750.0])
    state = method.rng.state_dict()
    x = method.sample_at_level(X, t, batch)
    x0 = method.student_sample(X, t, batch)
    method.rng.load_state_dict(state)
    fresh = torch.randn(3, 2, generator=method.rng.local("phase_noise"))
    expected = x0 + (500 / t)[:, None] * (X - x0) if kind == "ode" else 0.5 * x0 + 0.5 * fresh
    torch.testing.assert_close(x, expected)
    assert x.requires_grad


def test_scores_are_compared_above_the_level_alone_as_often_as_the_whole_distribution_is_there(tmp_path: Path) -> None:
    method = built(tmp_path)
    drawn = []
    for iteration in range(1, 2001):
        method._iteration = iteration
        drawn.append(method.score_timesteps(3, "critic"))
        assert torch.equal(drawn[-1] >= BOUNDARY, (drawn[-1] >= BOUNDARY)[:1].expand(3))  # one network of the critic
    t = torch.stack(drawn)
    assert 500 <= t.min() < 505
    assert (t >= BOUNDARY).float().mean().item() == pytest.approx(0.8, abs=0.04)
    assert ((t > 500) & (t < 550)).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_a_critic_of_one_network_is_compared_in_its_range(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run["roles"]["critic"]["train_modules"] = [HIGH]
    method = build_run(tmp_path, run).method
    assert min(method.score_timesteps(200, "critic")) >= BOUNDARY


def noised(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At T from level 0.5: t, x_t, the velocity to regress, and how strongly the fresh noise is in it."""
    t = T[:, None].double() / 1000
    a = (1 - t) / 0.5
    b = (t**2 - a**2 * 0.25).sqrt()
    x_t = a * x + b * NOISE
    return t, x_t, (t * NOISE / b - x_t) / (1 - t), (t / b - b) / (1 - t)


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A method of the first phase whose scores are taken at NOISE and T."""
    method = built(tmp_path)
    monkeypatch.setattr(method, "noise_like", lambda latents, stream: NOISE)
    monkeypatch.setattr(method, "score_timesteps", lambda batch_size, stream: T)
    return method


def test_the_critic_regresses_what_networks_of_the_family_do_at_the_level_s_own_noise(fixed: Any) -> None:
    losses, _, _ = fixed.critic_phase(X, batch_of(fixed))
    _, x_t, velocity, strength = noised(X)
    prediction = fixed.critic.modules[HIGH](x_t.float(), T / 1000, torch.ones(3, 1)).double()
    expected = ((prediction - velocity / 2) ** 2 / strength**2).mean()
    assert losses["critic_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_student_follows_the_difference_of_the_scores_at_its_sample_at_the_level(fixed: Any) -> None:
    x = X.clone().requires_grad_()
    losses, _, _ = fixed.student_phase(x, batch_of(fixed))
    losses["total_loss"].backward()
    t, x_t, _, _ = noised(X)
    fake, real = (
        x_t - t * 2 * role.modules[HIGH](x_t.float(), T / 1000, torch.ones(3, 1)).double()
        for role in (fixed.critic, fixed.teacher)
    )
    normaliser = (X - real).abs().mean(1, keepdim=True)
    torch.testing.assert_close(x.grad.double(), (fake - real) / normaliser / 6, rtol=1e-4, atol=1e-5)


def networks_with_gradients(method: Any) -> set[str]:
    named = ((handle.name, name, p) for handle in method.bundle for name, p in handle.named_parameters())
    return {f"{role}.{name.partition('.')[0]}" for role, name, p in named if p.grad is not None}


@pytest.mark.parametrize(("network", "earlier"), [(HIGH, {HIGH}), (LOW, {HIGH, LOW})])
def test_the_networks_of_earlier_phases_lead_to_the_input_without_a_graph(
    tmp_path: Path, network: str, earlier: set[str]
) -> None:
    method = built(tmp_path, network)
    calls: Counter[tuple[str, bool]] = Counter()
    for name, module in method.student.modules.items():
        module.register_forward_pre_hook(lambda *_, name=name: calls.update([(name, torch.is_grad_enabled())]))
    for iteration in range(1, 9):
        calls.clear()
        steps = method.single_train_step({"vae_latent": torch.zeros(3, 2)}, iteration)
        losses, outputs, _ = next(steps)
        method.backward(losses, outputs)
        assert networks_with_gradients(method) == {f"student.{network}"}
        assert {name for (name, has_graph) in calls if has_graph} == {network}
        assert {name for name, _ in calls} <= earlier
        assert calls[HIGH, False] == (2 if network == LOW else method.exit_index(iteration))
        method.optimizers_zero_grad(iteration)


def trained(folder: Path, network: str, **options: Any) -> dict[str, Tensor]:
    folder.mkdir()
    runtime = build_run(folder, run_of(folder, network, **options))
    before = {name: p.detach().clone() for name, p in runtime.method.student.named_parameters()}
    runtime.train()
    after = {name: p.detach().clone() for name, p in runtime.method.student.named_parameters()}
    moved = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {network}
    return after


def test_the_last_phase_is_ordinary_dmd2_to_the_bit_and_no_other_is(tmp_path: Path) -> None:
    runs = {
        (network, phased): trained(tmp_path / f"{network}{phased}", network, phased=phased)
        for network in (HIGH, LOW)
        for phased in (True, False)
    }
    same = {
        network: all(torch.equal(p, runs[network, False][name]) for name, p in runs[network, True].items())
        for network in (HIGH, LOW)
    }
    assert same == {HIGH: False, LOW: True}


def refused(folder: Path, run: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(folder, run)
    return str(caught.value)


def test_what_contradicts_a_phase_is_told_before_anything_is_built(tmp_path: Path) -> None:
    text = refused(tmp_path, run_of(tmp_path, None, adversarial_weight=0.1))
    assert (
        "roles.student.train_modules: phased trains one of the student's networks in a run, and this one trains all"
        in text
    )
    assert "method_config.adversarial_weight: the adversarial term compares clean samples" in text
    both = run_of(tmp_path, student={"train_modules": [HIGH, LOW]})
    assert "this one trains transformer, transformer_2" in refused(tmp_path, both)
    assert "roles.student.train_modules" not in refused(tmp_path, run_of(tmp_path, adversarial_weight=0.1))


def test_what_contradicts_a_phase_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method_config\.phased: the student has one network for all noise levels"):
        built(tmp_path, family="toy")
    with pytest.raises(ConfigError, match=r"dmd_denoising_steps: the student's network is trained at none of"):
        built(tmp_path, LOW, dmd_denoising_steps=[1000, 700])
    with pytest.raises(ConfigError, match=r"max_timestep_ratio: scores are compared above the noise level 0\.5"):
        built(tmp_path, max_timestep_ratio=0.5)


def test_a_student_of_one_network_is_told_before_weights_are_loaded(tmp_path: Path) -> None:
    class Outlined(TwoNetworksFamily):
        __module__ = "test_phased"
        networks = 2

        def outline(self, cfg: Any, role: str, **_: Any) -> Any:
            handle = RoleHandle(role, dict.fromkeys([HIGH, LOW][: self.networks], torch.nn.Linear(1, 1, device="meta")))
            return RoleOutline(handle)

    register_model("outlined", config=ToyConfig)(Outlined)
    resolve_run(tmp_path, run_of(tmp_path, family="outlined"))
    Outlined.networks = 1
    with pytest.raises(ConfigError, match=r"the student has one network for all noise levels"):
        resolve_run(tmp_path, run_of(tmp_path, family="outlined"))
