"""An iteration on the toy family: which networks are called, what is drawn, what moves, what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.contracts.adapter import PredictX0Guided
from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.contracts.validator import ValidationRequest
from fastvideo_core.errors import ConfigError, ContractError
from fastvideo_testing.runs import build_run, load_config, toy_family
from fastvideo_testing.toy import ToyAdapter

from .gaussian import built, run_of

Calls = Counter[tuple[str, int, bool]]


def calls_of_an_iteration(folder: Path, **options: Any) -> Calls:
    """The network calls of one: (role, samples, with a graph)."""
    method = built(folder, **options)
    calls: Calls = Counter()
    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(
            lambda _, inputs, name=handle.name: calls.update([(name, len(inputs[0]), torch.is_grad_enabled())])
        )
    take(method)
    return calls


def take(method: Any, iteration: int = 1) -> dict[str, Any]:
    losses, outputs, metrics = method.single_train_step({"vae_latent": torch.randn(4, 1) + 1.7}, iteration)
    method.backward(losses, outputs)
    return metrics


STUDENT = {("student", 4, True): 1, ("student", 4, False): 1}  # its own, and as the target


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {("teacher", 8, False): 1, **STUDENT}),
        ({"solver": "heun"}, {("teacher", 8, False): 2, **STUDENT}),
        ({"teacher_guidance_scale": 1.0}, {("teacher", 4, False): 1, **STUDENT}),
        ({"teacher_guidance_scale": 1.0, "solver": "heun"}, {("teacher", 4, False): 2, **STUDENT}),
        ({"teacher": False}, STUDENT),
        ({"target": "average"}, {("teacher", 8, False): 1, ("student", 4, True): 1, ("target", 4, False): 1}),
    ],
    ids=str,
)
def test_an_iteration_makes_the_fewest_calls(tmp_path: Path, options: dict[str, Any], expected: Calls) -> None:
    """Of a batch of 4: the teacher with both halves of guidance in one call, the target, and the student with a graph."""
    assert calls_of_an_iteration(tmp_path, **options) == expected


def test_steps_of_the_path_are_drawn_alike_for_each_sample_and_differ_between_ranks(tmp_path: Path) -> None:
    method = built(tmp_path, solver_steps=4)
    state = method.rng.state_dict()
    t, next_t = method.draw_interval(4000, 1)
    u = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    levels = 1000 * 5 * u / (1 + 4 * u)
    for now, later in itertools.pairwise(levels):
        drawn = (t - now).abs() < 1e-3
        assert int(drawn.sum()) == pytest.approx(1000, abs=110)  # four standard deviations
        torch.testing.assert_close(next_t[drawn], later.expand(int(drawn.sum())))
    method.rng.load_state_dict(state)
    assert torch.equal(method.draw_interval(4000, 1)[0], t)
    method.rng = RandomStreams(method.rng.seed, rank=1)
    assert not torch.equal(method.draw_interval(4000, 1)[0], t)


def test_the_path_begins_at_pure_noise_ends_clean_and_is_shifted(tmp_path: Path) -> None:
    assert built(tmp_path, solver_steps=2, shift=1.0).levels.tolist() == [1000.0, 500.0, 0.0]
    assert built(tmp_path, solver_steps=2, shift=3.0).levels.tolist() == pytest.approx([1000.0, 750.0, 0.0])


@pytest.mark.parametrize(("warp", "expected"), [(True, [1000.0, 833.333333]), (False, [1000.0, 500.0])])
def test_the_student_s_schedule_is_warped_to_the_path_s_levels_unless_told_otherwise(
    tmp_path: Path, warp: bool, expected: list[float]
) -> None:
    method = built(tmp_path, denoising_steps=[1000, 500], warp_denoising_step=warp)
    assert list(method.schedule.timesteps) == pytest.approx(expected)
    assert built(tmp_path).schedule.timesteps[0] == 1000.0
    assert len(built(tmp_path).schedule) == 4


def flat(handle: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in handle.named_parameters()]).clone()


def test_the_averaged_target_begins_as_the_student_and_follows_its_updates(tmp_path: Path) -> None:
    method = built(tmp_path, target="average", target_decay=0.75, training={"learning_rate": 0.1})
    average = flat(method.student)
    assert torch.equal(flat(method.target), average)
    for iteration in (1, 2, 3):
        take(method, iteration)
        torch.testing.assert_close(flat(method.target), average)  # only an update moves it
        method.optimizers_schedulers_step(iteration)
        method.optimizers_zero_grad(iteration)
        average = 0.75 * average + 0.25 * flat(method.student)
        torch.testing.assert_close(flat(method.target), average)
    assert not torch.allclose(flat(method.target), flat(method.student), atol=1e-3)
    assert all(not p.requires_grad for _, p in method.target.named_parameters())
    assert method.target.is_saved


def test_the_target_is_the_student_itself_by_default_and_no_role_is_made(tmp_path: Path) -> None:
    method = built(tmp_path)
    assert method.target is method.student
    assert [handle.name for handle in method.bundle] == ["student", "teacher"]


def test_student_and_target_see_the_caption_and_the_teacher_both_halves(tmp_path: Path) -> None:
    method = built(tmp_path)
    seen: list[tuple[str, list[float]]] = []
    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(
            lambda _, inputs, name=handle.name: seen.append((name, inputs[2].flatten().tolist()))
        )
    take(method)
    assert seen == [("teacher", [1.0] * 4 + [0.0] * 4), ("student", [1.0] * 4), ("student", [1.0] * 4)]


def test_dropped_captions_reach_student_target_and_teacher(tmp_path: Path) -> None:
    method = built(tmp_path, training={"training_cfg_rate": 1.0 - 1e-9}, teacher_guidance_scale=1.0)
    seen = []
    for handle in method.bundle:
        handle.modules["transformer"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    take(method)
    assert len(seen) == 3
    assert all(bool((condition == 0).all()) for condition in seen)


def test_the_log_tells_noise_levels_and_the_student_s_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = built(tmp_path)
    pair = torch.tensor([0.5, 120.0, 950.0, 1000.0]), torch.zeros(4)
    monkeypatch.setattr(method, "draw_interval", lambda size, iteration: pair)
    monkeypatch.setattr(
        method,
        "clean_end",
        lambda handle, noisy, t, batch: torch.tensor([[0.0], [1.0], [2.0], [5.0]], requires_grad=True),
    )
    metrics = take(method)
    assert metrics["timestep"].tolist() == [0.25, 0.25, 0, 0, 0, 0, 0, 0, 0, 0.5]
    assert float(metrics["student_x0/mean"]) == 2.0
    assert float(metrics["student_x0/std"]) == 0.0  # inside of samples of one element


def test_a_teacher_needs_guidance_of_the_family_and_no_teacher_does_not(tmp_path: Path) -> None:
    def needed(teacher: bool) -> bool:
        method = built(tmp_path, teacher=teacher)
        return PredictX0Guided in type(method).needs(method.cfg)

    assert needed(True)
    assert not needed(False)


# --- validation ---------------------------------------------------------------------------------------------------------


class Asked:
    """A validator that remembers."""

    def __init__(self) -> None:
        self.requests: list[ValidationRequest] = []

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        self.requests.append(request)


@pytest.mark.parametrize("teacher", [True, False])
def test_the_student_is_sampled_in_few_steps_by_sde_and_the_teacher_once_beside_it(
    tmp_path: Path, teacher: bool
) -> None:
    method = built(tmp_path, teacher=teacher)
    method.validator = asked = Asked()  # type: ignore[assignment]
    method.log_validation(5)
    again = built(tmp_path, teacher=teacher)
    again.load_checkpoint_state(method.checkpoint_state())
    again.validator = asked  # type: ignore[assignment]
    again.log_validation(10)
    labels = [request.label for request in asked.requests]
    assert labels == ["student", "teacher", "student"] if teacher else ["student", "student"]
    request = asked.requests[0]
    assert (request.sampler_kind, request.guidance_scale) == ("sde", 1.0)
    assert request.sampling_timesteps == method.schedule.timesteps


# --- what is refused ----------------------------------------------------------------------------------------------------


def refused(folder: Path, change: Any, **options: Any) -> str:
    run = run_of(folder, **options)
    change(run)
    with toy_family(), pytest.raises(ConfigError) as caught:
        load_config(folder, run)
    return str(caught.value)


def nothing(run: dict[str, Any]) -> None: ...


def test_roles_the_wrong_way_round_are_refused_together(tmp_path: Path) -> None:
    def swap(run: dict[str, Any]) -> None:
        run["roles"]["student"]["trainable"], run["roles"]["teacher"]["trainable"] = False, True

    text = refused(tmp_path, swap)
    assert "roles.student.trainable: the student of consistency must be trainable" in text
    assert "roles.teacher.trainable: the teacher of consistency must not be trainable" in text


def test_sampling_that_keeps_the_noise_is_refused_where_there_is_more_than_one_call(tmp_path: Path) -> None:
    def keep(run: dict[str, Any]) -> None:
        run["pipeline_config"]["sampler_kind"] = "ode"

    text = refused(tmp_path, keep)
    assert "pipeline_config.sampler_kind: ode: it would keep noise that does not belong to the end" in text
    assert "set it to sde" in text
    run = run_of(tmp_path, denoising_steps=[1000, 0])
    keep(run)
    with toy_family():
        load_config(tmp_path, run)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"teacher": False, "solver": "heun"}, "method_config.solver: does nothing without roles.teacher"),
        (
            {"teacher": False, "teacher_guidance_scale": 5.0},
            "teacher_guidance_scale: does nothing without roles.teacher",
        ),
        ({"target_decay": 0.5}, "method_config.target_decay: does nothing with target student"),
        ({"huber_constant": 0.1}, "method_config.huber_constant: does nothing with loss squared"),
        ({"denoising_steps": [1000, 500, 500]}, "steps must fall strictly"),
        ({"solver_steps": 0}, "method_config.solver_steps"),
        ({"solver": "rk4"}, "method_config.solver"),
        ({"target_decay": 1.0, "target": "average"}, "method_config.target_decay"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_meant_is_refused_with_its_key(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    assert text in refused(tmp_path, nothing, **options)


def test_a_role_that_the_method_makes_is_not_named(tmp_path: Path) -> None:
    def name(run: dict[str, Any]) -> None:
        run["roles"]["target"] = {"path": "toy/student", "trainable": False}

    assert "target" in refused(tmp_path, name, target="average")


def test_a_family_of_another_noise_axis_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ToyAdapter, "num_train_timesteps", property(lambda self: 100, lambda self, value: None), raising=False
    )
    with toy_family(), pytest.raises(ContractError, match="num_train_timesteps is 100; denoising_steps counts on 1000"):
        build_run(tmp_path, run_of(tmp_path))
