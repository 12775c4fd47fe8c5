from __future__ import annotations

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR

from fastvideo_core import RoleConfig
from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.checkpoint.storage import choose, read_document
from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.dispatch.role_weights import role_source
from fastvideo_core.errors import CheckpointError

from .toy_run import Counter, ToyRun, assert_same, network, toy_run


def resumed(folder, path=None, **options) -> ToyRun:
    run = toy_run(folder, seed=100, **options)
    torch.manual_seed(999)
    run.load(path or choose("latest", folder).path)
    return run


@pytest.mark.parametrize("saved_at", [1, 2, 5])  # 1: the student's optimizer has not stepped yet
def test_a_resumed_run_continues_bit_identically(tmp_path, saved_at):
    straight = toy_run(tmp_path / "a").steps(1, saved_at)
    straight.manager.save(saved_at)
    at_save = straight.fingerprint()
    before = {key: value.clone() for key, value in straight.method.state_dict().items()}
    torch.manual_seed(3)
    straight.manager.save(saved_at)  # not saved again: the seed just set is not in the checkpoint

    again = resumed(tmp_path / "a")
    assert_same(dict(again.method.state_dict()) | teacher(before), before)
    torch_state = torch.get_rng_state()
    assert_same(again.fingerprint() | {"rng": at_save["rng"]}, at_save)

    torch.set_rng_state(torch_state)
    straight_end = straight.steps(saved_at + 1, 9).fingerprint()
    torch.set_rng_state(torch_state)
    assert_same(again.steps(saved_at + 1, 9).fingerprint(), straight_end)


def teacher(state):
    return {key: value for key, value in state.items() if "teacher" in key}


def test_an_optimizer_that_never_stepped_loses_what_it_had(tmp_path):
    toy_run(tmp_path).steps(1, 1).manager.save(1)
    run = toy_run(tmp_path).steps(1, 4)
    optimizer = run.method.bundle["student"].optimizers["adamw"]
    assert optimizer.state
    run.load(tmp_path / "checkpoint-000001")
    assert not optimizer.state


def test_step_counters_and_moments_keep_their_dtype(tmp_path):
    nets = {"student": network().bfloat16()}
    run = toy_run(tmp_path, networks=nets)
    optimizer = run.method.bundle["student"].optimizers["adamw"]
    for index, parameter in enumerate(optimizer.param_groups[1]["params"]):
        if index % 2:  # partially filled: the others were never stepped
            optimizer.state[parameter] = {
                "step": torch.tensor(3.0),
                "exp_avg": torch.randn(parameter.shape),  # float32 moments of bfloat16 weights
                "row": torch.randn(2),
                "count": 4,
            }
    run.manager.save(3)
    again = resumed(tmp_path, networks={"student": network(seed=9).bfloat16()})
    assert_same(again.fingerprint()["optimizers"], run.fingerprint()["optimizers"])


def test_random_state_is_restored_last_and_once_more_on_request(tmp_path):
    run = toy_run(tmp_path).steps(1, 3)
    run.manager.save(3)
    expected = (
        torch.rand(2),
        torch.rand(2, generator=run.method.adapter.generator),
        run.method.rng.local("noise").get_state(),
    )
    again = resumed(tmp_path)
    torch.rand(5)  # as a dataloader's iterator does
    torch.rand(5, generator=again.method.rng.local("noise"))
    again.manager.restore_rng()
    actual = (
        torch.rand(2),
        torch.rand(2, generator=again.method.adapter.generator),
        again.method.rng.local("noise").get_state(),
    )
    assert_same(actual, expected)


def test_wrappers_leave_no_trace_in_names(tmp_path):
    wrapped = network()
    wrapped[0] = checkpoint_wrapper(wrapped[0])
    toy_run(tmp_path, networks={"student": wrapped}).steps(1, 2).manager.save(2)
    assert "0.weight" in read_role_weights(tmp_path, "student", ema=False)["net"]
    resumed(tmp_path).steps(3, 4)


def test_compiling_leaves_no_trace_in_names(tmp_path):
    compiled = network()
    compiled[0] = torch.compile(compiled[0])  # compiles nothing before it is called
    toy_run(tmp_path, networks={"student": compiled}).manager.save(2)
    assert "0.weight" in read_role_weights(tmp_path, "student", ema=True)["net"]
    assert list(read_role_weights(tmp_path, "student", ema=False)["net"])[:2] == ["0.weight", "0.bias"]


def test_weights_are_loaded_in_place(tmp_path):
    toy_run(tmp_path).steps(1, 2).manager.save(2)
    run = toy_run(tmp_path)
    before = [parameter.data_ptr() for parameter in run.method.parameters()]
    run.load(tmp_path / "checkpoint-000002")
    assert [parameter.data_ptr() for parameter in run.method.parameters()] == before


def fails(run: ToyRun, path, *messages: str) -> None:
    with pytest.raises(CheckpointError) as error:
        run.load(path)
    for message in messages:
        assert message in str(error.value)


def test_what_does_not_fit_is_named(tmp_path):
    path = toy_run(tmp_path).steps(1, 2).manager.save(2)
    fails(
        toy_run(tmp_path, width=4),
        path,
        "role 'student', module 'net': '0.weight' is float32[3, 3] in the checkpoint and float32[4, 3] in this run",
        "role 'critic', module 'net'",
        "fix: resume with the run.yaml that lies in the checkpoint, or start a new run from its weights",
    )
    fails(
        toy_run(tmp_path, networks={"student": torch.nn.Sequential(network(), torch.nn.Linear(1, 1))}),
        path,
        "role 'student', module 'net': it has no parameter 0.0.weight, 0.0.bias,",
        "and 6 more",
        "it has the parameter 0.weight",
        "optimizer 'adamw' of role 'student', group 0: it has no parameter student.net.0.0.weight",
    )
    fails(
        toy_run(tmp_path, networks={"student": network().bfloat16()}),
        path,
        "is float32[3, 3] in the checkpoint and bfloat16",
    )


def test_missing_and_unexpected_roles_and_optimizers_are_named(tmp_path):
    path = toy_run(tmp_path).manager.save(2)
    frozen = toy_run(tmp_path)
    frozen.method.bundle["critic"].trainable = False
    fails(frozen, path, "it has the saved role critic, which this run has not", "this run has: student")
    more = toy_run(tmp_path)
    more.method.bundle["teacher"].trainable = True
    fails(more, path, "it has no saved role teacher, which this run has", "the checkpoint has: student, critic")
    other = toy_run(tmp_path)
    student = other.method.bundle["student"]
    student.optimizers["muon"] = student.optimizers.pop("adamw")
    fails(other, path, "role 'student': it has no optimizer muon", "it has the optimizer adamw")


def test_callbacks_must_be_those_of_the_checkpoint(tmp_path):
    path = toy_run(tmp_path).manager.save(2)
    ema = EMACallback(EMAConfig())
    fails(
        toy_run(tmp_path, callbacks={"ema": ema}),
        path,
        "holds the state of callback 'counter', which this run does not have",
    )
    more = {"ema": EMACallback(EMAConfig()), "counter": Counter(), "second": Counter()}
    fails(toy_run(tmp_path, callbacks=more), path, "holds no state of callback 'second'")


def test_a_dataloader_that_cannot_resume_is_an_error(tmp_path):
    path = toy_run(tmp_path).manager.save(2)
    run = toy_run(tmp_path)
    run.loader = [torch.zeros(2, 3)]
    fails(run, path, "it holds the position in the data, but this run's dataloader cannot resume")


def test_a_method_that_refuses_its_state_is_named(tmp_path):
    path = toy_run(tmp_path).manager.save(2)
    run = toy_run(tmp_path)
    run.method.load_checkpoint_state = lambda state: state["nothing"]
    fails(run, path, "the method did not take back the stored state: KeyError: 'nothing'")


def test_other_optimizer_settings_in_the_configuration_are_reported(tmp_path, caplog):
    path = toy_run(tmp_path).manager.save(2)
    run = toy_run(tmp_path)
    run.method.bundle["student"].optimizers["adamw"].param_groups[0]["weight_decay"] = 0.7
    run.load(path)
    assert "weight_decay was 0.1 in the checkpoint; this run's configuration says 0.7, and counts" in caplog.text


@pytest.mark.parametrize("change", ["schedule", "rate", "both"])
def test_the_first_step_after_a_resume_has_the_rate_of_the_new_schedule(tmp_path, change, caplog):
    """The old curve has ended at 0: nothing of its last rate may come back, whatever is changed."""

    def run_of(total, rate):
        run = toy_run(tmp_path)
        optimizer = run.method.bundle["critic"].optimizers["adam"]
        optimizer.param_groups[0].update(lr=rate, initial_lr=rate)
        schedule = LambdaLR(optimizer, lambda update: max(0.0, 1 - update / total))
        run.method.bundle["critic"].lr_schedulers["adam"] = schedule
        return run, optimizer.param_groups[0]

    old, group = run_of(4, 1e-2)
    path = old.steps(1, 4).manager.save(4)
    assert group["lr"] == 0
    total, rate = {"schedule": (8, 1e-2), "rate": (4, 3e-2), "both": (8, 3e-2)}[change]
    straight, expected = run_of(total, rate)
    straight.steps(1, 4)
    run, group = run_of(total, rate)
    run.load(path)
    schedule = run.method.bundle["critic"].lr_schedulers["adam"]
    assert group["lr"] == expected["lr"] == schedule.get_last_lr()[0]
    if change != "rate":
        assert group["lr"] == rate / 2
        assert "lr scheduler 'adam' of role 'critic': this run's schedule counts from the first step on" in caplog.text
    assert [run.steps(step, step) and group["lr"] for step in (5, 6)] == [
        straight.steps(step, step) and expected["lr"] for step in (5, 6)
    ]


def test_a_schedule_that_is_not_changed_keeps_its_rate_to_the_bit_and_says_nothing(tmp_path, caplog):
    run = toy_run(tmp_path).steps(1, 7)
    path = run.manager.save(7)
    again = toy_run(tmp_path)
    again.load(path)
    assert_same(again.fingerprint()["optimizers"], run.fingerprint()["optimizers"])
    assert_same(again.fingerprint()["lr_schedulers"], run.fingerprint()["lr_schedulers"])
    assert "schedule" not in caplog.text


def test_a_schedule_with_a_memory_goes_on_from_the_checkpoint_s_rate_and_says_so(tmp_path, caplog):
    def run_of(rate):
        run = toy_run(tmp_path)
        optimizer = run.method.bundle["critic"].optimizers["adam"]
        optimizer.param_groups[0].update(lr=rate, initial_lr=rate)
        run.method.bundle["critic"].lr_schedulers["adam"] = ExponentialLR(optimizer, 0.5)
        return run, optimizer.param_groups[0]

    path = run_of(1e-2)[0].steps(1, 2).manager.save(2)
    run, group = run_of(4e-2)
    run.load(path)
    assert group["lr"] == pytest.approx(1e-2)
    assert "lr scheduler 'adam' of role 'critic': a ExponentialLR goes on from [0.01], not anew" in caplog.text


def test_role_weights_can_be_read_without_the_run(tmp_path):
    run = toy_run(tmp_path).steps(1, 4)
    run.manager.save(4)
    raw = read_role_weights(tmp_path, "student", ema=False)
    assert_same(raw, {"net": dict(run.method.bundle["student"].modules["net"].state_dict())})
    averaged = read_role_weights(tmp_path, "student", ema=True)["net"]
    run.callbacks.hook.validation_start(method=run.method, step=4)
    assert_same(averaged, dict(run.method.bundle["student"].modules["net"].state_dict()))
    assert not torch.equal(averaged["0.weight"], raw["net"]["0.weight"])


def test_a_checkpoint_describes_itself(tmp_path):
    run = toy_run(tmp_path).steps(1, 2)
    path = run.manager.save(2)
    info = describe(tmp_path)
    assert (info.path, info.ema_roles) == (path, ("student",))
    assert info.roles == {"student": ("net",), "critic": ("net",)}
    assert info.config["recipe"] == {"family": "toy", "method": "toy"}
    document = read_document(path)
    assert document.step == 2
    assert document.versions["toy"] == "1.2"
    assert document.versions["torch"] == torch.__version__


def test_ema_weights_that_had_not_started_are_not_there(tmp_path):
    toy_run(tmp_path, ema_start=10).steps(1, 2).manager.save(2)
    assert describe(tmp_path).ema_roles == ()


def test_a_role_or_averages_that_the_checkpoint_does_not_hold_are_named(tmp_path):
    toy_run(tmp_path, ema_start=10).steps(1, 2).manager.save(2)
    with pytest.raises(
        CheckpointError, match=r"(?s)checkpoint_role: .* holds no role 'teacher'.*holds: student, critic"
    ):
        role_source("teacher", RoleConfig(path=str(tmp_path), trainable=False))
    with pytest.raises(CheckpointError, match=r"(?s)weights: .* has no EMA weights of role 'student'.*take the raw"):
        role_source("student", RoleConfig(path=str(tmp_path), trainable=False, weights="ema"))
