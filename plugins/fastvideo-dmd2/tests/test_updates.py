"""What an update of DMD2 is made of, on the toy family: the two gradients by hand, accumulation, and each role's settings."""

from dataclasses import replace

import pytest
import torch

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.base import PluginConfig
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_testing.runs import build_run, toy_family


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def built(folder, *, method=None, training=None, student=None, critic=None, **sections):
    run = {
        "recipe": {"family": "toy", "method": "dmd2"},
        "roles": {
            "student": {"path": "org/student", "trainable": True, **(student or {})},
            "teacher": {"path": "org/teacher", "trainable": False},
            "critic": {"path": "org/critic", "trainable": True, **(critic or {})},
        },
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 10,
            "train_batch_size": 4,
            "learning_rate": 1e-3,
            "max_grad_norm": 0,
            **(training or {}),
        },
        "method_config": {"dmd_denoising_steps": [1000, 500], "generator_update_interval": 2, **(method or {})},
        **sections,
    }
    folder.mkdir(exist_ok=True)
    return build_run(folder, run)


class AtUpdates(Callback):
    """Copies what the optimizers see: gradients before and after clipping, and the weights that come out."""

    def __init__(self):
        super().__init__(PluginConfig())
        self.raw, self.clipped, self.weights = [], [], []

    @hookimpl
    def before_optimizer_step(self, method):
        self.raw.append({handle.name: gradients(handle) for handle in method.bundle})

    @hookimpl
    def after_optimizer_step(self, method):
        self.clipped.append({handle.name: gradients(handle) for handle in method.bundle})
        self.weights.append({handle.name: weights(handle) for handle in method.bundle})


def gradients(handle):
    """All gradients of a role in one vector; None when it has none."""
    found = [p.grad.flatten() for _, p in handle.named_parameters() if p.grad is not None]
    return torch.cat(found).clone() if found else None


def weights(handle):
    return torch.cat([p.detach().flatten() for _, p in handle.named_parameters()]).clone()


def trained(runtime, steps, **callbacks):
    """Runs the trainer for some steps; what the optimizers saw at each."""
    seen = AtUpdates()
    trainer = DistillTrainer(runtime.training_args, config={})
    trainer.run(runtime.method, runtime.dataloader, steps, callbacks=CallbackManager({"seen": seen, **callbacks}))
    return seen


# --- the two gradients by hand ------------------------------------------------------------------------------------

X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.4]])
NOISE = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.1, -1.3]])
T = torch.tensor([100.0, 500.0, 900.0])
WEIGHT = torch.tensor([[1.0, 0.0], [0.5, 2.0], [1.0, 1.0]])


def fixed_run(folder, monkeypatch, guidance, loss_weight):
    """A method whose scores are taken at `NOISE` and `T`, and its batch."""
    method = built(folder, method={"real_score_guidance_scale": guidance}).method
    monkeypatch.setattr(method, "noise_like", lambda latents, stream: NOISE)
    monkeypatch.setattr(method, "score_timesteps", lambda batch_size, stream: T)
    return method, replace(method.prepare_batch({"vae_latent": X + 100}), loss_weight=loss_weight)


def velocity(handle, x_t, condition):
    return handle.modules["transformer"](x_t, T / 1000, torch.full((3, 1), condition))


def noised(x):
    sigma = T[:, None] / 1000
    return sigma, (1 - sigma) * x + sigma * NOISE


@pytest.mark.parametrize("loss_weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_student_follows_the_difference_of_the_critic_and_the_guided_teacher(
    tmp_path, monkeypatch, guidance, loss_weight
):
    method, batch = fixed_run(tmp_path, monkeypatch, guidance, loss_weight)
    x = X.clone().requires_grad_()
    losses, _, metrics = method.student_phase(x, batch)
    losses["total_loss"].backward()

    with torch.no_grad():
        sigma, x_t = noised(X)
        fake = x_t - sigma * velocity(method.critic, x_t, 1.0)
        conditional = x_t - sigma * velocity(method.teacher, x_t, 1.0)
        unconditional = x_t - sigma * velocity(method.teacher, x_t, 0.0)
        real = unconditional + guidance * (conditional - unconditional)
        w = torch.ones_like(X) if loss_weight is None else loss_weight
        share = w / w.sum(1, keepdim=True)
        normaliser = (share * (X - real).abs()).sum(1, keepdim=True)
        expected = share * (fake - real) / normaliser / len(X)
    torch.testing.assert_close(x.grad, expected)
    assert metrics["dmd/normaliser"].item() == pytest.approx(normaliser.mean().item(), rel=1e-5)


@pytest.mark.parametrize("loss_weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_the_critic_regresses_the_velocity_of_the_student_s_samples(tmp_path, monkeypatch, loss_weight):
    method, batch = fixed_run(tmp_path, monkeypatch, 1.0, loss_weight)
    losses, _, _ = method.critic_phase(X, batch)
    losses["total_loss"].backward()
    found = gradients(method.critic)

    method.critic.modules["transformer"].zero_grad()
    _, x_t = noised(X)
    error = (velocity(method.critic, x_t, 1.0) - (NOISE - X)) ** 2
    w = torch.ones_like(X) if loss_weight is None else loss_weight
    loss = ((w * error).sum(1) / w.sum(1)).mean()
    loss.backward()
    assert losses["critic_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(found, gradients(method.critic))


def test_dropped_captions_reach_the_networks_as_the_negative_conditioning(tmp_path):
    method = built(tmp_path, training={"training_cfg_rate": 0.25}).method
    raw = {"vae_latent": torch.zeros(4000, 2)}
    first, second = (method.prepare_batch(raw).conditioning["condition"] for _ in range(2))
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(first, second)


# --- accumulation -------------------------------------------------------------------------------------------------


class Tables:
    """Noise and timesteps handed out row by row from fixed tables, so that they do not depend on the micro-batches."""

    def __init__(self, method):
        self.rows = {}
        method.noise_like = lambda latents, stream: self.take(
            stream, len(latents), lambda g: torch.randn(64, 2, generator=g)
        )
        method.score_timesteps = lambda size, stream: self.take(
            f"{stream} t", size, lambda g: 20 + 960 * torch.rand(64, generator=g)
        )
        if method.adversarial is not None:
            own = {"noise_like": method.noise_like, "sample_timesteps": method.score_timesteps}
            method.adversarial = replace(method.adversarial, **own)

    def take(self, stream, count, make):
        table, start = self.rows.get(stream, (None, 0))
        if table is None:
            table = make(torch.Generator().manual_seed(sum(stream.encode())))
        self.rows[stream] = (table, start + count)
        return table[start : start + count]


TERM = {"adversarial_weight": 0.5, "discriminator_weight": 0.5, "r1_weight": 0.1, "r1_sigma": 0.1}


@pytest.mark.parametrize(
    "options",
    [{}, {"rollout_mode": "data_latent"}, TERM, {**TERM, "adversarial_features": "teacher"}],
    ids=["simulate", "data_latent", "adversarial", "adversarial_teacher"],
)
@pytest.mark.parametrize(("rounds", "batch"), [(2, 2), (4, 1)])
def test_accumulated_rounds_give_the_gradients_of_one_large_batch(tmp_path, options, rounds, batch):
    def gradients_of(name, **training):
        runtime = built(tmp_path / name, method=options, training=training)
        Tables(runtime.method)
        return trained(runtime, 4).raw

    accumulated = gradients_of("rounds", gradient_accumulation_steps=rounds, train_batch_size=batch)
    at_once = gradients_of("once", train_batch_size=4)
    for one, other, due in zip(accumulated, at_once, (False, True, False, True), strict=True):
        assert (one["student"] is not None) is due
        assert one["teacher"] is None
        trained_now = (
            {"critic"}
            | ({"student"} if due else set())
            | ({"discriminator"} if TERM.keys() <= options.keys() else set())
        )
        assert {role for role, gradient in other.items() if gradient is not None} == trained_now
        for role in trained_now:
            assert one[role].norm() > 1e-3
            torch.testing.assert_close(one[role], other[role], rtol=1e-4, atol=1e-6)


# --- who is updated, and how --------------------------------------------------------------------------------------


def test_the_student_s_weights_move_on_its_own_iterations_only(tmp_path):
    runtime = built(tmp_path, method={"generator_update_interval": 3})
    start = {handle.name: weights(handle) for handle in runtime.method.bundle}
    seen = trained(runtime, 7)
    history = [start, *seen.weights]
    moved = {
        role: [i for i in range(1, 8) if not torch.equal(history[i][role], history[i - 1][role])] for role in start
    }
    assert moved == {"student": [3, 6], "critic": [1, 2, 3, 4, 5, 6, 7], "teacher": []}


def test_the_average_follows_the_student_s_updates_only(tmp_path):
    runtime = built(tmp_path, training={"learning_rate": 0.1}, callbacks={"ema": {"decay": 0.5}})
    average = weights(runtime.method.student)
    ema = runtime.callbacks.callbacks["ema"]
    seen = trained(runtime, 5, ema=ema)
    for step in (2, 4):
        average = 0.5 * average + 0.5 * seen.weights[step - 1]["student"]
    shadow = ema.state_dict()["shadow"]["student"]["transformer"]
    torch.testing.assert_close(torch.cat([shadow[name].flatten() for name in names(runtime)]), average)


def names(runtime):
    return [name for name, _ in runtime.method.student.modules["transformer"].named_parameters()]


def test_every_optimizer_setting_is_the_role_s_own_else_training_s(tmp_path):
    method = built(
        tmp_path,
        training={"learning_rate": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1, "adam_epsilon": 1e-6},
        critic={"learning_rate": 0.0, "betas": [0.0, 0.5], "weight_decay": 0.0},
    ).method

    def settings(handle):
        (group,) = handle.optimizers["adamw"].param_groups
        return group["lr"], tuple(group["betas"]), group["weight_decay"], group["eps"]

    assert settings(method.student) == (1e-3, (0.9, 0.99), 0.1, 1e-6)
    assert settings(method.critic) == (0.0, (0.0, 0.5), 0.0, 1e-6)
    assert not method.teacher.optimizers


def test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates(tmp_path):
    runtime = built(
        tmp_path,
        training={"max_train_steps": 12, "learning_rate": 1.0, "lr_scheduler": "linear", "lr_warmup_steps": 1},
        critic={"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 3, "learning_rate": 2.0},
    )
    rates = {"lr/student": [], "lr/critic": []}
    for iteration in range(1, 13):
        for name, rate in runtime.method.learning_rates().items():
            rates[name].append(rate)
        runtime.method.optimizers_schedulers_step(iteration)
    # the student makes 6 updates: one of warm-up, then 5 from 1 down; its rate changes behind iterations 2, 4, ...
    student = [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert rates["lr/student"] == pytest.approx([rate for rate in student for _ in range(2)])
    assert rates["lr/critic"] == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 9)


def test_each_role_is_clipped_at_its_own_norm(tmp_path):
    runtime = built(tmp_path, training={"max_grad_norm": 0.25}, student={"max_grad_norm": 1e-4})
    seen = trained(runtime, 2)
    raw, clipped = seen.raw[1], seen.clipped[1]
    assert raw["student"].norm() > 1e-3
    assert raw["critic"].norm() > 0.25
    assert clipped["student"].norm().item() == pytest.approx(1e-4, rel=1e-2)
    assert clipped["critic"].norm().item() == pytest.approx(0.25, rel=1e-4)


def test_a_norm_of_zero_leaves_a_role_s_gradients_alone(tmp_path):
    runtime = built(tmp_path, training={"max_grad_norm": 1e-4}, student={"max_grad_norm": 0})
    seen = trained(runtime, 2)
    assert torch.equal(seen.raw[1]["student"], seen.clipped[1]["student"])
    assert seen.clipped[1]["critic"].norm() < 1.01e-4


def test_a_student_gradient_left_from_elsewhere_does_not_reach_its_next_update(tmp_path):
    """A leak into a role that is not due must not be carried along until it is."""
    clean, dirty = (built(tmp_path / name) for name in ("clean", "dirty"))
    step = dirty.method.single_train_step

    def leaking(batch, iteration, **options):
        if iteration == 1:
            for parameter in dirty.method.student.trainable_parameters():
                parameter.grad = torch.ones_like(parameter)
        return step(batch, iteration, **options)

    dirty.method.single_train_step = leaking
    expected, found = trained(clean, 2), trained(dirty, 2)
    assert torch.equal(expected.raw[1]["student"], found.raw[1]["student"])
