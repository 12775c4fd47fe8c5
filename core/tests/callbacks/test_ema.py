from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.contracts.method import DistillMethod

from .toy_roles import optimizers, toy_config, toy_method


class Run:
    def __init__(self, config: EMAConfig, dtype: torch.dtype = torch.float32, start_step: int = 0) -> None:
        self.method: DistillMethod = toy_method(dtype)
        self.ema = EMACallback(config)
        self.hook = CallbackManager({"ema": self.ema}).hook
        self.hook.train_start(method=self.method, start_step=start_step)

    def step(self, step: int, *roles: str, add: float = 1.0) -> None:
        with torch.no_grad():
            for role in roles:
                self.weight(role).add_(add)
        self.hook.after_optimizer_step(method=self.method, step=step, optimizers=optimizers(self.method, *roles))

    def weight(self, role: str = "student") -> Tensor:
        return self.method.bundle[role].modules["net"].weight

    def shadow(self, role: str = "student") -> Tensor:
        return self.ema.state_dict()["shadow"][role]["net"]["weight"]


def test_the_average_follows_its_closed_form():
    run = Run(EMAConfig(decay=0.9))
    weights = [run.weight().detach().clone()]
    for step in range(1, 6):
        run.step(step, "student", add=step**2)
        weights.append(run.weight().detach().clone())
    closed = 0.9**5 * weights[0] + sum(0.1 * 0.9 ** (5 - i) * weights[i] for i in range(1, 6))
    torch.testing.assert_close(run.shadow(), closed)


def test_decay_zero_is_the_last_weight():
    run = Run(EMAConfig(decay=0.0))
    run.step(1, "student")
    torch.testing.assert_close(run.shadow(), run.weight().detach())


def test_iterations_that_only_step_the_critic_leave_the_average_alone():
    run = Run(EMAConfig(decay=0.5))
    run.step(1, "student", "critic")
    before = run.shadow().clone()
    for step in range(2, 6):
        run.step(step, "critic")
    assert torch.equal(run.shadow(), before)
    run.step(6, "critic", "student")
    assert not torch.equal(run.shadow(), before)


def test_averaging_starts_from_the_weights_after_the_start_step():
    run = Run(EMAConfig(decay=0.5, start_step=3))
    for step in (1, 2):
        run.step(step, "student")
        assert run.ema.state_dict() == {"started": False, "shadow": {}}
    run.step(3, "critic")
    assert torch.equal(run.shadow(), torch.tensor([3.0, 4.0]))
    run.step(4, "student")
    assert torch.equal(run.shadow(), torch.tensor([3.5, 4.5]))


def test_averages_are_float32_whatever_the_weights_are():
    run = Run(EMAConfig(decay=0.999), torch.bfloat16)
    for step in range(1, 101):
        run.step(step, "student", add=0.0 if step > 1 else 1.0)
    assert run.shadow().dtype == torch.float32
    torch.testing.assert_close(run.shadow(), torch.tensor([2.0, 3.0]) - 0.999**100, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_validation_sees_the_averages_and_gives_the_weights_back_bitwise(dtype):
    run = Run(EMAConfig(decay=0.9), dtype)
    run.step(1, "student", "critic", add=1 / 3)
    weight, critic = run.weight().detach().clone(), run.weight("critic").detach().clone()
    place = run.weight().data_ptr()
    run.hook.validation_start(method=run.method, step=1)
    assert torch.equal(run.weight(), run.shadow().to(dtype))
    assert not torch.equal(run.weight(), weight)
    assert torch.equal(run.weight("critic"), critic)
    run.hook.validation_end(method=run.method, step=1)
    assert torch.equal(run.weight(), weight)
    assert run.weight().data_ptr() == place
    run.hook.validation_end(method=run.method, step=1)
    assert torch.equal(run.weight(), weight)


def test_a_validation_before_the_start_sees_the_weights():
    run = Run(EMAConfig(start_step=5))
    run.step(1, "student")
    weight = run.weight().detach().clone()
    run.hook.validation_start(method=run.method, step=1)
    assert torch.equal(run.weight(), weight)


def test_state_resumes_bitwise():
    run = Run(EMAConfig(decay=0.9, roles=("student", "critic")))
    run.step(1, "student", "critic", add=1 / 3)
    state = {"started": True, "shadow": {r: {"net": dict(m["net"])} for r, m in run.ema.state_dict()["shadow"].items()}}
    again = Run(EMAConfig(decay=0.9, roles=("student", "critic")), start_step=1)
    with torch.no_grad():
        again.weight().copy_(run.weight())
    again.ema.load_state_dict(state)
    for one in (run, again):
        one.step(2, "student", add=0.7)
    assert torch.equal(run.shadow(), again.shadow())
    assert torch.equal(run.shadow("critic"), again.shadow("critic"))


def test_state_of_a_run_that_had_not_started_keeps_waiting():
    run = Run(EMAConfig(start_step=4), start_step=2)
    run.ema.load_state_dict({"started": False, "shadow": {}})
    run.step(3, "student")
    assert not run.ema.state_dict()["started"]


def test_averages_of_other_roles_are_named():
    (problem,) = EMACallback(EMAConfig()).misfits({"started": True, "shadow": {"critic": {}}})
    assert "the checkpoint averages critic; this run student" in str(problem)
    assert "set callbacks.ema.roles to [critic]" in str(problem)


@pytest.mark.parametrize(
    ("role", "message"),
    [("studnet", "role 'studnet' is not in this run"), ("teacher", "role 'teacher' is not trainable")],
)
def test_a_role_that_cannot_be_averaged_is_named(role, message):
    config = EMAConfig(roles=(role,))
    ((key, problem),) = config.check_run(toy_config({"ema": config}))
    assert key == "callbacks.ema.roles[0]"
    assert message in str(problem)
    assert "trainable roles: student, critic" in str(problem)
    assert EMAConfig().check_run(toy_config()) == []
