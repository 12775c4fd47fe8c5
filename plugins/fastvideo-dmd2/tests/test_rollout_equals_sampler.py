"""The sample that the student is trained on is, bit for bit, the one that the sampler makes of the same noise."""

import pytest
import torch

from fastvideo_core.contracts.rng import RandomStreams
from fastvideo_core.diffusion.flow import shift_sigma
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout
from fastvideo_testing.runs import build_run, toy_family

SEED, BATCH, SHIFT = 7, 3, 5.0


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


class Requests:
    """A validator that only remembers what it is asked to sample."""

    def __init__(self):
        self.made = []

    def set_tracker(self, tracker):
        pass

    def log_validation(self, step, request):
        self.made.append(request)


def steps_of(calls, *, closing_zero=False):
    steps = [1000 * (calls - i) / calls for i in range(calls)]
    return [*steps, 0] if closing_zero else steps


def built(folder, steps, kind, warp):
    run = {
        "recipe": {"family": "toy", "method": "dmd2"},
        "roles": {
            "student": {"path": "org/base", "trainable": True},
            "teacher": {"path": "org/teacher", "trainable": False},
            "critic": {"path": "org/base", "trainable": True},
        },
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 10, "train_batch_size": BATCH, "seed": SEED},
        "pipeline_config": {"flow_shift": SHIFT, "sampler_kind": kind},
        "method_config": {"dmd_denoising_steps": steps, "warp_denoising_step": warp},
    }
    return build_run(folder, run).method


def training_sample(method, exit_index, monkeypatch):
    """The student's x0 [B, D] of a training iteration that leaves the rollout at `exit_index`, with its graph."""
    monkeypatch.setattr(method, "exit_index", lambda iteration: exit_index)
    batch = method.prepare_batch({"vae_latent": torch.full((BATCH, 2), 9.0)}, latents_source="zeros")
    noisy, t = method.student_input(batch, 1)
    return method.student_sample(noisy, t, batch), batch


def sampler_s_outputs(method, batch):
    """The x0 of every call of the sampler, by the request that the method makes for its validation videos."""
    method.validator = requests = Requests()
    method.log_validation(1)
    request = requests.made[0]
    assert request.sample_handle is method.student
    streams = RandomStreams(SEED)  # the run's, before any draw
    noise = torch.randn(BATCH, 2, generator=streams.local("student_noise"))
    outputs = []

    def predict_x0(noisy, t):
        outputs.append(method.adapter.predict_x0(request.sample_handle, noisy, t, batch, conditional=True))
        return outputs[-1]

    x0 = rollout(
        predict_x0,
        noise,
        FewStepSchedule(request.sampling_timesteps),
        kind=request.sampler_kind,
        generator=streams.local("rollout_noise"),
    )
    assert x0 is outputs[-1]
    return outputs


def by_hand(method, batch, steps, kind, warp):
    """The same rollout written out: sigma of each call from the run.yaml's steps, then DDIM or fresh noise."""
    sigmas = [step / 1000 for step in steps if step > 0]
    if warp:
        sigmas = [float(shift_sigma(torch.tensor(sigma, dtype=torch.float64), SHIFT)) for sigma in sigmas]
    streams = RandomStreams(SEED)
    x = torch.randn(BATCH, 2, generator=streams.local("student_noise"))
    network = method.student.modules["transformer"]
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        v = network(x, torch.full((BATCH,), sigma), batch.conditioning["condition"])
        x0 = x - sigma * v
        if following is not None:
            implied = x + (1 - sigma) * v
            fresh = torch.randn(x.shape, generator=streams.local("rollout_noise")) if kind == "sde" else None
            x = (1 - following) * x0 + following * (implied if fresh is None else fresh)
    return x0


@pytest.mark.parametrize("warp", [False, True], ids=["plain", "warped"])
@pytest.mark.parametrize("closing_zero", [False, True], ids=["", "closing_zero"])
@pytest.mark.parametrize("calls", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_the_finished_training_rollout_is_the_sampler_s(tmp_path, monkeypatch, kind, calls, closing_zero, warp):
    steps = steps_of(calls, closing_zero=closing_zero)
    method = built(tmp_path, steps, kind, warp)
    assert len(method.schedule) == calls
    x, batch = training_sample(method, calls - 1, monkeypatch)
    assert torch.equal(x, sampler_s_outputs(method, batch)[-1])
    torch.testing.assert_close(x, by_hand(method, batch, steps, kind, warp), rtol=1e-5, atol=1e-5)
    assert len({tuple(sample) for sample in x.tolist()}) == BATCH


@pytest.mark.parametrize("exit_index", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_a_rollout_that_leaves_early_is_the_sampler_s_up_to_there(tmp_path, monkeypatch, kind, exit_index):
    method = built(tmp_path, [1000, 750, 500, 250, 0], kind, True)
    x, batch = training_sample(method, exit_index, monkeypatch)
    outputs = sampler_s_outputs(method, batch)
    assert torch.equal(x, outputs[exit_index])
    assert not any(torch.equal(x, other) for index, other in enumerate(outputs) if index != exit_index)
