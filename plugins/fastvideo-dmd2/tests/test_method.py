"""DMD2's iteration on the toy family: who is updated, who gets gradients, how many network calls are made."""

from collections import Counter

import pytest
import torch

from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing.runs import build_run, load_config, toy_family


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def run_of(folder, *, method=None, training=None, **sections):
    return {
        "recipe": {"family": "toy", "method": "dmd2"},
        "roles": {
            "student": {"path": "org/base", "trainable": True},
            "teacher": {"path": "org/teacher", "trainable": False},
            "critic": {"path": "org/base", "trainable": True},
        },
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 10,
            "train_batch_size": 4,
            "learning_rate": 1e-3,
            **(training or {}),
        },
        "method_config": {"dmd_denoising_steps": [1000, 500], "generator_update_interval": 2, **(method or {})},
        **sections,
    }


def built(folder, **options):
    runtime = build_run(folder, run_of(folder, **options))
    return runtime.method, iter(runtime.dataloader)


def count_calls(method):
    """Network calls by (role, with or without a graph) from now on."""
    calls = Counter()
    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(
            lambda *_, name=handle.name: calls.update([(name, torch.is_grad_enabled())])
        )
    return calls


def phases(method, batch, iteration):
    for loss_map, outputs, _ in method.single_train_step(batch, iteration):
        method.backward(loss_map, outputs)
        yield loss_map


def test_the_student_is_updated_every_kth_iteration_and_the_critic_always(tmp_path):
    method, _ = built(tmp_path)
    due = {i: [handle.name for handle in method.due_roles(i)] for i in (1, 2, 3, 4)}
    assert due == {1: ["critic"], 2: ["student", "critic"], 3: ["critic"], 4: ["student", "critic"]}


def test_each_phase_gives_gradients_to_its_own_role_only(tmp_path):
    method, batches = built(tmp_path)

    def roles_with_gradients():
        return {h.name for h in method.bundle if any(p.grad is not None for _, p in h.named_parameters())}

    steps = phases(method, next(batches), 2)
    assert set(next(steps)) == {"total_loss", "student_loss"}
    assert roles_with_gradients() == {"student"}
    before = [p.grad.clone() for p in method.student.trainable_parameters()]
    assert set(next(steps)) == {"total_loss", "critic_loss"}
    assert roles_with_gradients() == {"student", "critic"}
    after = [p.grad for p in method.student.trainable_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("guidance", "teacher_calls"), [(1.0, 1), (3.5, 1)])
def test_a_student_iteration_makes_one_rollout_and_one_call_of_each_score(tmp_path, guidance, teacher_calls):
    method, batches = built(tmp_path, method={"dmd_denoising_steps": [1000], "real_score_guidance_scale": guidance})
    calls = count_calls(method)
    list(phases(method, next(batches), 2))
    assert calls == {
        ("student", True): 1,  # its x is reused, detached, for the critic
        ("critic", False): 1,
        ("teacher", False): teacher_calls,
        ("critic", True): 1,
    }


def test_an_iteration_without_the_student_makes_no_student_graph_and_no_teacher_call(tmp_path):
    method, batches = built(tmp_path, method={"dmd_denoising_steps": [1000]})
    calls = count_calls(method)
    list(phases(method, next(batches), 1))
    assert calls == {("student", False): 1, ("critic", True): 1}


def test_only_the_steps_up_to_the_exit_are_run(tmp_path):
    method, batches = built(tmp_path, method={"dmd_denoising_steps": [1000, 750, 500, 250, 0]})
    seen = set()
    for iteration in range(2, 30, 2):
        calls = count_calls(method)
        list(phases(method, next(batches), iteration))
        exit_index = method.exit_index(iteration)
        assert calls[("student", False)] == exit_index
        assert calls[("student", True)] == 1
        seen.add(exit_index)
    assert seen == {0, 1, 2, 3}


def test_all_accumulation_rounds_of_an_iteration_share_the_exit_step(tmp_path):
    method, _ = built(tmp_path, method={"dmd_denoising_steps": [1000, 750, 500, 250]})
    assert all(method.exit_index(i) == method.exit_index(i) for i in range(1, 20))


def test_score_timesteps_are_per_sample_and_inside_the_bounds(tmp_path):
    method, _ = built(tmp_path, method={"min_timestep_ratio": 0.1, "max_timestep_ratio": 0.2})
    t = method.score_timesteps(1000, "critic")
    assert t.min() >= 100
    assert t.max() <= 200
    assert len(t.unique()) > 50


def test_score_timesteps_go_through_the_family_s_shift(tmp_path):
    plain, _ = built(tmp_path)
    shifted, _ = built(tmp_path, pipeline_config={"flow_shift": 5.0})
    assert shifted.score_timesteps(20_000, "critic").mean() > plain.score_timesteps(20_000, "critic").mean() + 200


def test_score_timesteps_are_shifted_first_and_clamped_then(tmp_path):
    method, _ = built(tmp_path, pipeline_config={"flow_shift": 5.0}, method={"max_timestep_ratio": 0.9})
    state = method.rng.state_dict()
    u = torch.rand(2000, generator=method.rng.local("critic_timestep"))
    method.rng.load_state_dict(state)
    t = method.score_timesteps(2000, "critic")
    torch.testing.assert_close(t, (1000 * 5 * u / (1 + 4 * u)).clamp(20, 900))
    # what lies beyond a bound is held at it: shifted u is above 0.9 where u is above 0.9 / 1.4
    assert (t == 900).float().mean().item() == pytest.approx(1 - 0.9 / 1.4, abs=0.04)


def test_data_latent_mode_noises_each_sample_of_the_data_to_its_own_exit_step(tmp_path):
    method, batches = built(tmp_path, method={"rollout_mode": "data_latent", "dmd_denoising_steps": [1000, 1]})
    prepared = method.prepare_batch(next(batches))
    for _ in range(50):
        noisy, t = method.student_input(prepared, 1)
        clean = t == 1.0
        assert set(t.tolist()) <= {1000.0, 1.0}
        torch.testing.assert_close(noisy[clean], prepared.latents[clean], atol=0.01, rtol=0)
        assert (noisy[~clean] - prepared.latents[~clean]).abs().sum(1).gt(0.05).all()
        if 0 < clean.sum() < 4:
            break
    else:
        raise AssertionError("no batch had samples at both steps")


def test_data_latent_mode_draws_every_step_of_the_schedule_alike_and_other_ones_on_other_ranks(tmp_path):
    steps = [1000, 750, 500, 250]
    method, _ = built(tmp_path, method={"rollout_mode": "data_latent", "dmd_denoising_steps": steps})
    state = method.rng.state_dict()
    drawn = method.exit_timesteps(8000)
    for step in steps:
        assert (drawn == step).sum().item() == pytest.approx(2000, abs=160)  # four standard deviations
    method.rng.load_state_dict(state)
    assert torch.equal(method.exit_timesteps(8000), drawn)
    method.rng = RandomStreams(method.rng.seed, rank=1)
    assert not torch.equal(method.exit_timesteps(8000), drawn)


def test_simulate_mode_does_not_look_at_the_data(tmp_path):
    method, batches = built(tmp_path)
    batch = next(batches)
    state = method.rng.state_dict()
    first = [loss["total_loss"].item() for loss in phases(method, batch, 2)]
    method.rng.load_state_dict(state)
    other = [loss["total_loss"].item() for loss in phases(method, {"vae_latent": batch["vae_latent"] + 100}, 2)]
    assert first == other


def test_schedulers_are_sized_in_the_updates_that_each_role_makes(tmp_path):
    method, _ = built(tmp_path, training={"lr_scheduler": "linear", "max_train_steps": 10})
    rates = []
    for iteration in range(1, 11):
        method.optimizers_schedulers_step(iteration)
        rates.append((method.learning_rates()["lr/student"], method.learning_rates()["lr/critic"]))
    assert rates[-1] == (0.0, 0.0)
    assert rates[4] == (pytest.approx(1e-3 * 3 / 5), pytest.approx(1e-3 * 5 / 10))


def test_no_gradient_survives_an_iteration(tmp_path):
    method, batches = built(tmp_path)
    list(phases(method, next(batches), 2))
    method.optimizers_zero_grad(1)  # even when the student is not due
    assert all(p.grad is None for h in method.bundle for _, p in h.named_parameters())


def test_frozen_and_trained_roles_the_wrong_way_round_are_refused_together(tmp_path):
    run = run_of(tmp_path)
    run["roles"]["teacher"]["trainable"] = True
    run["roles"]["critic"]["trainable"] = False
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, run)
    text = str(caught.value)
    assert "roles.teacher.trainable: the teacher of dmd2 must not be trainable" in text
    assert "roles.critic.trainable: the critic of dmd2 must be trainable" in text


def test_an_interval_beyond_the_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the student would never be updated: the run has 10 steps"):
        load_config(tmp_path, run_of(tmp_path, method={"generator_update_interval": 11}))


def test_bad_denoising_steps_are_refused_with_their_key(tmp_path):
    with pytest.raises(ConfigError, match=r"method_config\.dmd_denoising_steps.*steps must fall strictly"):
        load_config(tmp_path, run_of(tmp_path, method={"dmd_denoising_steps": [1000, 500, 500]}))


BARE = """
from fastvideo_core import PluginConfig, register_model

@register_model("bare", config=PluginConfig)
def build(cfg):
    raise AssertionError("nothing is built")
"""


def test_a_family_whose_options_have_no_sampler_kind_is_refused_before_anything_is_built(tmp_path):
    (tmp_path / "bare.py").write_text(BARE)
    PluginRegistry().load_plugin_file(tmp_path / "bare.py")
    run = run_of(tmp_path) | {"recipe": {"family": "bare", "method": "dmd2"}}
    with pytest.raises(ConfigError, match="dmd2 needs a sampler_kind, which PluginConfig does not have"):
        load_config(tmp_path, run)
