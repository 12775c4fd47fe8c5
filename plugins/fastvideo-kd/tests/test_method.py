"""Knowledge distillation on the toy family: what is drawn, what is logged, what is refused."""

import pytest
import torch

from fastvideo_core.contracts.adapter import StoredTrajectory
from fastvideo_core.errors import ConfigError, ContractError, UserError
from fastvideo_testing.runs import build_run, load_config, toy_family
from fastvideo_testing.toy import ToyAdapter


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def run_of(folder, *, method=None, training=None, pipeline=None, roles=None):
    return {
        "recipe": {"family": "toy", "method": "kd"},
        "roles": {"student": {"path": "org/base", "trainable": True}, **(roles or {})},
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 4, **(training or {})},
        "method_config": method or {},
        "pipeline_config": {"num_samples": 256, **(pipeline or {})},
    }


GUIDED = {
    "method": {"target": "guidance"},
    "training": {"validation_guidance_scale": "1"},
    "roles": {"teacher": {"path": "org/teacher", "trainable": False}},
}


def test_every_step_of_the_schedule_is_drawn_alike_for_each_sample(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path)).method
    drawn = method.steps.draw(8000, iteration=1, stream="student_steps")
    assert set(drawn.tolist()) == {1000.0, 750.0, 500.0, 250.0}
    for level in (1000.0, 750.0, 500.0, 250.0):
        assert (drawn == level).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_each_sample_learns_from_its_own_state_and_its_own_end(tmp_path):
    """Swapping two samples swaps nothing else: the loss of a batch is the mean of its samples' losses."""
    method = build_run(tmp_path, run_of(tmp_path)).method
    ends, t = torch.tensor([[0.0, 2.0], [3.0, -1.0]]), torch.tensor([1000.0, 250.0])

    def loss_of(*rows):
        batch = method.prepare_batch({"vae_latent": ends[list(rows)]}, latents_source="trajectory")
        return method.x0_loss(batch, t[list(rows)]).item()

    assert loss_of(0, 1) == pytest.approx((loss_of(0) + loss_of(1)) / 2, rel=1e-6)
    assert loss_of(1, 0) == pytest.approx(loss_of(0, 1), rel=1e-6)


@pytest.mark.parametrize("loss", ["x0_loss", "velocity_loss"])
def test_elements_without_weight_count_nothing(loss, tmp_path):
    from dataclasses import replace

    method = build_run(tmp_path, run_of(tmp_path)).method
    batch = method.prepare_batch({"vae_latent": torch.tensor([[0.0, 2.0]])}, latents_source="trajectory")
    t = torch.tensor([500.0])
    both = getattr(method, loss)(batch, t).item()
    first, second = (
        getattr(method, loss)(replace(batch, loss_weight=torch.tensor([weight])), t).item()
        for weight in ([1.0, 0.0], [0.0, 1.0])
    )
    assert both == pytest.approx((first + second) / 2, rel=1e-6)
    assert first != pytest.approx(second, rel=1e-3)


def test_the_slope_of_the_last_step_leads_to_the_clean_end(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path, method={"target": "velocity"})).method
    later = method.next_timesteps(torch.tensor([1000.0, 750.0, 500.0, 250.0]))
    assert later.tolist() == [750.0, 500.0, 250.0, 0.0]


def test_the_schedule_is_moved_through_the_family_s_shift_unless_told_otherwise(tmp_path):
    shifted = build_run(tmp_path, run_of(tmp_path, pipeline={"flow_shift": 3.0})).method
    assert shifted.schedule.timesteps == pytest.approx((1000.0, 900.0, 750.0, 500.0))
    plain = build_run(
        tmp_path, run_of(tmp_path, method={"warp_denoising_step": False}, pipeline={"flow_shift": 3.0})
    ).method
    assert plain.schedule.timesteps == (1000.0, 750.0, 500.0, 250.0)


def test_the_guided_target_has_no_gradient_and_the_student_has_one(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path, **GUIDED)).method
    method.single_train_step({"vae_latent": torch.randn(4, 2)}, 1)[0]["total_loss"].backward()
    assert all(p.grad is None for p in method.bundle["teacher"].modules["transformer"].parameters())
    assert all(p.grad is not None for p in method.student.trainable_parameters())


def test_the_guided_target_has_no_graph(tmp_path):
    """Also of a teacher whose weights would take a gradient, as adapters on a shared network do."""
    method = build_run(tmp_path, run_of(tmp_path, **GUIDED)).method
    kept = []
    guided = method.adapter.predict_noise_guided
    method.adapter.predict_noise_guided = lambda *args, **options: kept.append(guided(*args, **options)) or kept[-1]
    method.bundle["teacher"].modules["transformer"].requires_grad_(True)
    method.single_train_step({"vae_latent": torch.randn(4, 2)}, 1)
    assert not kept[0].requires_grad


def test_guidance_of_the_teacher_is_in_the_target(tmp_path):
    plain, guided = (
        build_run(
            tmp_path, run_of(tmp_path, **{**GUIDED, "method": {"target": "guidance", "teacher_guidance_scale": w}})
        ).method
        for w in (1.0, 3.0)
    )
    batch = plain.prepare_batch({"vae_latent": torch.ones(4, 2)})
    noise, t = torch.zeros(4, 2), torch.full((4,), 500.0)
    noisy = plain.adapter.add_noise(batch.latents, noise, t)
    predict = lambda method, role, condition: method.adapter.predict_noise(  # noqa: E731
        method.bundle[role], noisy, t, batch, conditional=condition
    )
    given, free = predict(guided, "teacher", True), predict(guided, "teacher", False)
    student = predict(guided, "student", True)
    expected = ((free + 3 * (given - free) - student) ** 2).mean().item()
    assert guided.guidance_loss(batch, noise, t).item() == pytest.approx(expected, rel=1e-5)
    assert plain.guidance_loss(batch, noise, t).item() == pytest.approx(
        ((given - student) ** 2).mean().item(), rel=1e-5
    )


class Requests:
    """A validator that keeps what it is asked for."""

    def __init__(self):
        self.seen = []

    def set_tracker(self, tracker):
        return None

    def log_validation(self, step, request):
        self.seen.append(request)


def test_validation_follows_the_student_s_own_schedule(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path)).method
    method.validator = Requests()
    method.log_validation(3)
    (request,) = method.validator.seen
    assert (request.sampling_timesteps, request.sampler_kind) == ((1000.0, 750.0, 500.0, 250.0), "ode")
    assert request.guidance_scale == 1.0


def test_validation_of_a_guided_student_takes_many_steps_without_guidance(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path, **GUIDED)).method
    method.validator = Requests()
    method.log_validation(3)
    (request,) = method.validator.seen
    assert (request.sampling_timesteps, request.sampling_steps, request.guidance_scale) == (None, 50, 1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roles": {"student": {"path": "org/x", "trainable": False}}}, "the student of kd must be trainable"),
        ({"roles": GUIDED["roles"]}, "target x0 learns from the trajectories in the data and calls no teacher"),
        ({"method": {"target": "guidance"}}, "target guidance needs a teacher, and there is none"),
        ({**GUIDED, "training": {}}, "what the student gives is guided already, and would be guided twice"),
        ({"method": {"teacher_guidance_scale": 3.0}}, "is in the trajectories already"),
        ({"method": {"target": "velocity"}, "pipeline": {"sampler_kind": "sde"}}, "it redraws the noise"),
        ({"method": {"denoising_steps": [1000, 500, 700]}}, "steps must fall strictly"),
        (
            {**GUIDED, "method": {"target": "guidance", "denoising_steps": [1000]}},
            "does nothing with target guidance, whose student is sampled in many steps",
        ),
        (
            {**GUIDED, "roles": {"teacher": {"path": "org/x", "trainable": True}}},
            "the teacher of kd must not be trainable",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradictions_are_refused_with_words(changes, said, tmp_path):
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path, run_of(tmp_path, **changes))
    assert said in str(raised.value)


def test_a_family_without_trajectories_is_refused_before_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyAdapter, "stored_trajectory", StoredTrajectory.stored_trajectory)
    with pytest.raises(UserError, match="stored_trajectory"):
        build_run(tmp_path, run_of(tmp_path))


def test_an_adapter_that_ignores_what_it_is_asked_for_is_told_so(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path)).method
    batch = method.prepare_batch({"vae_latent": torch.zeros(1, 2)})
    with pytest.raises(ContractError, match="gave a batch without a trajectory"):
        method.x0_loss(batch, torch.tensor([1000.0]))


def test_the_log_tells_the_noise_levels(tmp_path):
    method = build_run(tmp_path, run_of(tmp_path, method={"denoising_steps": [1000]})).method
    _, _, metrics = method.single_train_step({"vae_latent": torch.tensor([[0.0, 2.0]])}, 1)
    assert metrics["timestep"].tolist() == [0.0] * 9 + [1.0]
    assert (metrics["data_x0/mean"].item(), metrics["data_x0/std"].item()) == (1.0, 1.0)
