"""An iteration on the toy family: who is updated, which networks are called, what is computed, how the rollout goes."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.contracts.adapter import PredictX0Guided, Ranges, SupportsTangent
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import ValidationRequest
from fastvideo_core.errors import NonFiniteError
from fastvideo_rcm.consistency import ConsistencyNeeds
from fastvideo_rcm.method import ConsistencyMethod, RcmMethod, RcmNeeds
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_testing.toy import ToyAdapter

from .runs import MEAN, STD, Calls, Constant, FlowMap, built, calls_of, phases, run_of, run_on, trained_roles, use

# --- who is updated -----------------------------------------------------------------------------------------------------


def test_the_student_alone_in_the_warm_up_then_every_kth_iteration_and_the_critic_in_the_others(tmp_path: Path) -> None:
    method = built(tmp_path)  # warm-up 2, interval 3
    due = {i: [handle.name for handle in method.due_roles(i)] for i in range(1, 8)}
    student, critic = ["student"], ["critic"]
    assert due == {1: student, 2: student, 3: student, 4: critic, 5: critic, 6: student, 7: critic}


def test_without_distribution_matching_the_student_is_updated_always_and_there_is_no_critic(tmp_path: Path) -> None:
    method = built(tmp_path, matching=False)
    assert isinstance(method, ConsistencyMethod)
    assert [handle.name for handle in method.bundle] == ["student", "teacher"]
    assert [[handle.name for handle in method.due_roles(i)] for i in (1, 2, 3, 4)] == [["student"]] * 4


def test_the_heads_of_a_discriminator_are_updated_with_the_critic(tmp_path: Path) -> None:
    method = built(tmp_path, adversarial_weight=0.1)
    assert [[h.name for h in method.due_roles(i)] for i in (3, 4)] == [["student"], ["critic", "discriminator"]]
    found = {iteration: [set(losses) for losses, _ in phases(method, iteration)] for iteration in (1, 3)}
    assert found[1] == [{"total_loss", "consistency_loss"}]
    assert [sorted(names - {"total_loss"}) for names in found[3]] == [
        ["consistency_loss"],
        ["generator_loss", "student_loss"],
    ]
    assert trained_roles(method) == {"student"}
    method.optimizers_zero_grad(3)
    assert len(list(phases(method, 4))) > 1
    assert trained_roles(method) == {"critic", "discriminator"}


@pytest.mark.parametrize(
    ("iteration", "expected", "role"),
    [
        (1, ["consistency_loss"], "student"),
        (3, ["consistency_loss", "student_loss"], "student"),
        (4, ["critic_loss"], "critic"),
    ],
    ids=["warm-up", "student", "critic"],
)
def test_each_phase_is_its_own_loss_and_trains_its_own_role(
    tmp_path: Path, iteration: int, expected: list[str], role: str
) -> None:
    method, seen = built(tmp_path), []
    for losses, _ in phases(method, iteration):
        seen += [name for name in losses if name != "total_loss"]
        assert trained_roles(method) == {role}
    assert seen == expected


def test_the_losses_have_their_weights(tmp_path: Path) -> None:
    method = built(tmp_path, consistency_weight=7.0, dmd_weight=0.25)
    consistency, matching = (losses for losses, _ in phases(method, 3))
    assert consistency["total_loss"].item() == pytest.approx(7 * consistency["consistency_loss"].item())
    assert matching["total_loss"].item() == pytest.approx(0.25 * matching["student_loss"].item())


def test_schedules_of_the_learning_rate_are_sized_in_the_updates_of_each_role(tmp_path: Path) -> None:
    method = built(tmp_path, training={"lr_scheduler": "linear", "max_train_steps": 11})
    rates = []
    for iteration in range(1, 12):
        method.optimizers_schedulers_step(iteration)
        rates.append([method.learning_rates()[f"lr/{role}"] * 1e3 for role in ("student", "critic")])
    assert rates[2] == pytest.approx([2 / 5, 1])  # 1, 2, 3, 6 and 9 are the student's, 6 the critic's
    assert rates[3] == pytest.approx([2 / 5, 5 / 6])
    assert rates[-1] == [0.0, 0.0]


# --- network calls ------------------------------------------------------------------------------------------------------

CONSISTENCY: Calls = Counter({("student", 4, "forward mode"): 1, ("student", 4, "graph"): 1})


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["warm-up", "student", "critic"])
def test_an_iteration_makes_the_calls_of_the_page(tmp_path: Path, kind: str, guidance: float) -> None:
    """docs/rcm.md's table: both halves of guidance are one call of twice the samples."""
    method = built(tmp_path, real_score_guidance_scale=guidance)
    scored = ("teacher", 4 if guidance == 1 else 8, "plain")
    exits = set()
    iterations = {"warm-up": (1, 2), "student": range(3, 40, 3), "critic": range(4, 43, 3)}[kind]
    for iteration in iterations:
        calls = calls_of(method)
        list(phases(method, iteration))
        before = 0 if kind == "warm-up" else method.exit_index(iteration)
        expected = {
            "warm-up": {scored: 1, **CONSISTENCY},
            "student": {
                scored: 2,
                **CONSISTENCY,
                ("student", 4, "graph"): 2,
                ("student", 4, "plain"): before,
                ("critic", 4, "plain"): 1,
            },
            "critic": {("student", 4, "plain"): before + 1, ("critic", 4, "graph"): 1},
        }[kind]
        assert calls == Counter(expected)
        exits.add(before)
    assert exits == ({0} if kind == "warm-up" else {0, 1, 2, 3})


def test_without_distribution_matching_every_iteration_is_the_same(tmp_path: Path) -> None:
    method = built(tmp_path, matching=False)
    for iteration in (1, 3, 4):
        calls = calls_of(method)
        list(phases(method, iteration))
        assert calls == Counter({("teacher", 8, "plain"): 1, **CONSISTENCY})


# --- the consistency term through the framework ---------------------------------------------------------------------------


def at_the_oracle(folder: Path, **options: Any) -> tuple[Any, torch.Tensor]:
    """A method at x_s = (2, 0.5), s = 0.8 in every draw, and the latents for it; O8's place."""
    method = built(folder, dims=2, matching=False, **{"real_score_guidance_scale": 1.0, **options})
    method.noise_like = lambda latents, stream: torch.tensor([[1.0, -1.0]])
    method.consistency._timesteps = lambda size, iteration: torch.tensor([800.0])
    return method, torch.tensor([[6.0, 6.5]])


def test_one_term_has_the_loss_and_the_gradient_of_the_oracle(tmp_path: Path) -> None:
    """O8's numbers: its loss is a sum of two elements, ours 100 times half their mean."""
    method, latents = at_the_oracle(tmp_path, tangent_warmup_steps=0)
    student = use(method, "student", FlowMap(1.0, 0.8, dims=2))
    [(losses, metrics)] = phases(method, 1, latents)
    assert float(losses["consistency_loss"]) == pytest.approx(0.399740926 / 4, rel=1e-5)
    assert float(losses["total_loss"]) == pytest.approx(25 * 0.399740926, rel=1e-5)
    assert float(metrics["consistency/tangent_norm"]) == pytest.approx(0.171924366, rel=1e-5)
    torch.testing.assert_close(student.offset.grad, 25 * torch.tensor([0.657768565, 0.809095689]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("iteration", [1, 500, 1000, 3000])
def test_the_warm_up_scales_the_student_s_own_part_of_the_tangent(tmp_path: Path, iteration: int) -> None:
    """O3's numbers of g at x_s = 2, s = 0.8 for r = 0, 1/2 and 1, between which g is linear."""
    method, _ = at_the_oracle(tmp_path, tangent_warmup_steps=1000)
    method.noise_like = lambda latents, stream: torch.tensor([[1.0, 1.0]])
    use(method, "student", FlowMap(1.0, 0.8))
    [(_, metrics)] = phases(method, iteration, torch.tensor([[6.0, 6.0]]))
    r = min(1.0, iteration / 1000)
    g = 0.053503640 + r * (-0.108451806 - 0.053503640)
    assert float(metrics["consistency/tangent_norm"]) == pytest.approx(abs(g) * math.sqrt(2), rel=2e-5)
    assert metrics["consistency/warmup"] == r


def test_the_consistency_function_of_the_teacher_gets_no_gradient(tmp_path: Path) -> None:
    method = built(tmp_path, matching=False, real_score_guidance_scale=1.0, tangent_warmup_steps=0)
    student = use(method, "student", FlowMap(MEAN, STD))
    [(losses, metrics)] = phases(method, 1)
    assert float(metrics["consistency/tangent_norm"]) < 1e-5
    assert all(float(p.grad.abs()) < 1e-3 for p in student.parameters()), losses
    student = use(method, "student", FlowMap(1.0, 0.8))
    list(phases(method, 1))
    assert student.mean.grad < -0.1  # it grows


def test_a_step_down_the_gradient_leads_to_the_consistency_function(tmp_path: Path) -> None:
    method = built(tmp_path, matching=False, real_score_guidance_scale=1.0, tangent_warmup_steps=0)
    student = use(method, "student", FlowMap(1.0, 0.8))
    for iteration in range(1, 61):
        student.zero_grad()
        list(phases(method, iteration, MEAN + STD * torch.randn(256, 1)))
        with torch.no_grad():
            student.mean -= 0.01 * student.mean.grad
            student.std -= 0.01 * student.std.grad
    assert student.mean.item() == pytest.approx(MEAN, abs=0.1)
    assert student.std.item() == pytest.approx(STD, abs=0.1)


def test_the_teacher_is_guided(tmp_path: Path) -> None:
    """A student of velocity 0 has g = (1 - s) n v_T."""
    method, latents = at_the_oracle(tmp_path, tangent_warmup_steps=0, real_score_guidance_scale=5.0)
    use(method, "student", Constant(0.0, 0.0))
    use(method, "teacher", Constant(0.5, 1.0))  # 0.5 + 5 * 1
    [(_, metrics)] = phases(method, 1, latents)
    expected = 0.2 * math.sqrt(0.68) * 5.5 * math.sqrt(2)
    assert float(metrics["consistency/tangent_norm"]) == pytest.approx(expected, rel=1e-5)


def test_noise_levels_are_those_of_the_recipe_per_sample_and_not_shifted(tmp_path: Path) -> None:
    """Quantiles of sigmoid(N(0.7, 1.6)) at 5, 25, 50, 75 and 95 %."""
    method = built(tmp_path, pipeline={"flow_shift": 5.0})
    state = method.rng.state_dict()
    t = method.consistency._timesteps(20_000, 1)
    found = torch.quantile(t / 1000, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    torch.testing.assert_close(found, torch.tensor([0.127, 0.406, 0.668, 0.856, 0.966]), rtol=0, atol=0.015)
    method.rng.load_state_dict(state)
    assert torch.equal(method.consistency._timesteps(20_000, 1), t)
    method.rng = RandomStreams(method.rng.seed, rank=1)
    assert not torch.equal(method.consistency._timesteps(20_000, 1), t)


def test_dropped_captions_reach_the_student_in_both_of_its_calls(tmp_path: Path) -> None:
    method = built(tmp_path, matching=False, training={"training_cfg_rate": 1.0 - 1e-9}, real_score_guidance_scale=1.0)
    seen: list[torch.Tensor] = []
    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    list(phases(method, 1))
    assert len(seen) == 3
    assert all(bool((condition == 0).all()) for condition in seen)


def test_a_tangent_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """rCM zeroes such samples; here nothing is hidden."""
    with toy_family():
        run = run_of(tmp_path, matching=False, training={"max_skipped_steps": 0})
        runtime = build_run(tmp_path, run)
        use(runtime.method, "teacher", Constant(math.nan, 0.0))
        with pytest.raises(NonFiniteError, match="consistency_loss is nan"):
            runtime.train()


# --- the student's rollout --------------------------------------------------------------------------------------------------


def rollouts(method: Any, count: int) -> list[tuple[float, ...]]:
    return [method.rollout_schedule(iteration).timesteps for iteration in range(1, count + 1)]


def test_a_rollout_stops_at_random_times_that_fall_from_pure_noise(tmp_path: Path) -> None:
    method = built(tmp_path, pipeline={"flow_shift": 5.0})
    found = rollouts(method, 2000)
    assert Counter(map(len, found)).keys() == {1, 2, 3, 4}
    for times in found:
        assert times[0] == 1000.0
        assert list(times) == sorted(times, reverse=True)
    second = torch.tensor([times[1] for times in found if len(times) > 1])
    assert len(second.unique()) > 1000
    assert float(second.median()) == pytest.approx(1000 * 5 / 6, abs=15)  # the shift of a half
    third = torch.tensor([times[2] for times in found if len(times) > 2])
    u = 1 - math.sqrt(0.5)  # the median of the smaller one of two
    assert float(third.median()) == pytest.approx(1000 * 5 * u / (1 + 4 * u), abs=25)


def test_all_rounds_and_ranks_of_an_iteration_share_the_rollout_s_times(tmp_path: Path) -> None:
    method, other = built(tmp_path), built(tmp_path)
    other.rng = RandomStreams(other.rng.seed, rank=1)
    for iteration in range(1, 10):
        times = method.rollout_schedule(iteration).timesteps
        assert method.rollout_schedule(iteration).timesteps == times
        assert other.rollout_schedule(iteration).timesteps == times


def test_the_student_is_scored_where_its_rollout_ends(tmp_path: Path) -> None:
    method = built(tmp_path)
    for iteration in range(4, 28, 3):
        seen: list[float] = []
        hook = method.student.modules["transformer"].register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(1000 * float(inputs[1][0]))
        )
        [(_, metrics)] = phases(method, iteration)
        hook.remove()
        assert seen == pytest.approx(list(method.rollout_schedule(iteration).timesteps))
        assert float(metrics["rollout/exit_timestep"]) == pytest.approx(seen[-1])


def test_the_times_of_the_schedule_may_be_asked_for(tmp_path: Path) -> None:
    method = built(tmp_path, rollout_times="schedule")
    batch = method.prepare_batch({"vae_latent": torch.zeros(4, 1)})
    steps = {float(method.student_input(batch, iteration)[1][0]) for iteration in range(1, 60)}
    assert sorted(steps) == pytest.approx([609.0, 852.9, 933.8, 1000.0])


class UpperNetwork(ToyAdapter):
    """Whose student is trained above 600."""

    def noise_ranges(self, handle: RoleHandle) -> Ranges:
        return ((600.0, 1000.0),) if handle.trainable else ((0.0, 1000.0),)


def test_a_rollout_ends_where_the_student_s_network_is_trained(tmp_path: Path) -> None:
    with toy_family():
        method: Any = build_run(tmp_path, run_on(tmp_path, UpperNetwork)).method
    found = rollouts(method, 300)
    assert {len(times) for times in found} == {1, 2, 3, 4}
    assert all(times[-1] >= 600 for times in found)
    assert len({times[-1] for times in found}) > 100


def test_a_rollout_may_begin_from_data(tmp_path: Path) -> None:
    method = built(tmp_path, rollout_mode="data_latent", dmd_denoising_steps=[1000, 1])
    clean = 1.7 + torch.randn(64, 1)
    noisy, t = method.student_input(method.prepare_batch({"vae_latent": clean}), 1)
    assert set(t.tolist()) == {1000.0, 1.0}
    torch.testing.assert_close(noisy[t == 1], clean[t == 1], atol=0.02, rtol=0)


# --- around -----------------------------------------------------------------------------------------------------------------


def test_what_is_asked_of_a_family_depends_on_what_is_computed(tmp_path: Path) -> None:
    matching, alone = built(tmp_path), built(tmp_path, matching=False)
    assert RcmMethod.needs(matching.cfg) == (RcmNeeds,)
    assert RcmMethod.needs(alone.cfg) == (ConsistencyNeeds,)
    assert PredictX0Guided not in ConsistencyNeeds.__mro__
    assert SupportsTangent in ConsistencyNeeds.__mro__
    assert RcmMethod.latents_source(matching.cfg) == "data"


class Asked:
    """A validator that remembers."""

    def __init__(self) -> None:
        self.requests: list[ValidationRequest] = []

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        self.requests.append(request)


@pytest.mark.parametrize("matching", [True, False])
def test_the_student_is_sampled_on_its_schedule_and_the_teacher_once_beside_it(tmp_path: Path, matching: bool) -> None:
    asked = Asked()
    method = built(tmp_path, matching=matching)
    method.validator = asked
    method.log_validation(5)
    again = built(tmp_path, matching=matching)
    again.load_checkpoint_state(method.checkpoint_state())
    again.validator = asked
    again.log_validation(10)
    assert [request.label for request in asked.requests] == ["student", "teacher", "student"]
    assert asked.requests[0].sampler_kind == "sde"
    assert asked.requests[0].sampling_timesteps == pytest.approx((1000, 933.8, 852.9, 609.0))
