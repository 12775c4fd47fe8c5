from __future__ import annotations

import logging

import pytest

from fastvideo_core import PluginConfig
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.callbacks.manager import CallbackError, CallbackManager
from fastvideo_core.errors import CheckpointError, ConfigError, PluginError


def make(kind: type[Callback]) -> Callback:
    return kind(PluginConfig())


def recorder(place: int, calls: list[str], name: str) -> Callback:
    class Recorder(Callback):
        order = place

        @hookimpl
        def step_end(self, step, metrics):
            calls.append(name)
            metrics[name] = step

    return make(Recorder)


def test_lower_order_runs_first_and_equal_order_runs_by_name():
    calls: list[str] = []
    names = {"z": -1, "b": 0, "a": 0, "early": -5, "late": 9}
    manager = CallbackManager({name: recorder(order, calls, name) for name, order in names.items()})
    metrics: dict[str, float] = {}
    manager.hook.step_end(method=None, step=4, metrics=metrics)
    assert calls == ["early", "z", "a", "b", "late"] == list(manager.callbacks)
    assert metrics == dict.fromkeys(calls, 4)


def test_a_run_without_callbacks_can_call_every_hook():
    CallbackManager({}).hook.step_end(method=None, step=1, metrics={})


def test_a_misspelt_hook_is_an_error_with_a_suggestion():
    class Misspelt(Callback):
        @hookimpl
        def after_optimiser_step(self, step):
            pass

    with pytest.raises(PluginError) as error:
        CallbackManager({"mine": make(Misspelt)})
    assert "callback 'mine': unknown hook 'after_optimiser_step'" in str(error.value)
    assert "did you mean 'after_optimizer_step'?" in str(error.value)
    assert "allowed: train_start, before_round, before_optimizer_step," in str(error.value)


@pytest.mark.parametrize("parameters", ["self, step, loss", "self, step, *loss", "self, step, loss=1", "self, *, loss"])
def test_an_argument_that_the_hook_does_not_give_is_an_error(parameters):
    scope: dict[str, object] = {}
    exec(f"def step_end({parameters}): pass", scope)
    kind = type("Greedy", (Callback,), {"step_end": hookimpl(scope["step_end"])})
    with pytest.raises(
        PluginError, match=r"(?s)Greedy.step_end: takes \*?.*loss.*which the hook does not give.*method, step, metrics"
    ):
        CallbackManager({"mine": make(kind)})


def test_an_argument_with_a_default_would_never_be_passed_and_is_an_error():
    class Default(Callback):
        @hookimpl
        def step_end(self, step=0):
            pass

    with pytest.raises(PluginError, match=r"(?s)takes step=0, which the hook does not give.*without default values"):
        CallbackManager({"mine": make(Default)})


def test_a_hook_without_its_marker_is_an_error():
    class Unmarked(Callback):
        def step_end(self, step):
            pass

    with pytest.raises(PluginError, match=r"(?s)Unmarked.step_end: has the name of a hook.*decorate it with @hookimpl"):
        CallbackManager({"mine": make(Unmarked)})


def test_hook_wrappers_are_refused():
    class Wrapper(Callback):
        @hookimpl(wrapper=True)
        def step_end(self):
            return (yield)

    with pytest.raises(PluginError, match=r"(?s)callback 'mine': .*wrapper=True"):
        CallbackManager({"mine": make(Wrapper)})


class Broken(Callback):
    error: Exception = ValueError("boom")

    @hookimpl
    def step_end(self):
        raise self.error

    @hookimpl
    def exception(self, error):
        raise self.error


def test_an_error_names_the_callback_and_the_hook_and_keeps_the_cause():
    with pytest.raises(
        CallbackError, match=r"^callback 'mine' failed in its hook 'step_end': ValueError: boom$"
    ) as error:
        CallbackManager({"mine": make(Broken)}).hook.step_end(method=None, step=1, metrics={})
    assert error.value.__cause__ is Broken.error
    assert error.value.exit_code == 1


def test_a_users_error_stays_one():
    callback = make(Broken)
    callback.error = ConfigError("callbacks.mine.roles: nonsense")
    with pytest.raises(ConfigError, match=r"^callbacks\.mine\.roles: nonsense$"):
        CallbackManager({"mine": callback}).hook.step_end(method=None, step=1, metrics={})


def test_an_error_in_the_exception_hook_does_not_hide_the_runs_own(caplog):
    with caplog.at_level(logging.ERROR):
        CallbackManager({"mine": make(Broken)}).hook.exception(method=None, step=1, error=RuntimeError("first"))
    assert "callback 'mine' failed in its hook 'exception': ValueError: boom" in caplog.text


class Stateful(Callback):
    value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_state_is_kept_by_name():
    one, other = make(Stateful), make(Stateful)
    one.value = 3
    manager = CallbackManager({"one": one, "other": other, "stateless": make(Callback)})
    assert manager.state_dict() == {"one": {"value": 3}, "other": {"value": 0}}
    again = CallbackManager({"one": make(Stateful), "other": make(Stateful)})
    again.load_state_dict({"one": {"value": 3}, "other": {"value": 5}})
    assert again.state_dict() == {"one": {"value": 3}, "other": {"value": 5}}


def test_state_without_its_callback_and_a_callback_without_its_state_are_errors():
    manager = CallbackManager({"one": make(Stateful)})
    with pytest.raises(CheckpointError) as error:
        manager.load_state_dict({"two": {"value": 1}})
    assert "holds the state of callback 'two', which this run does not have" in str(error.value)
    assert "add 'two' to the callbacks section of run.yaml" in str(error.value)
    assert "holds no state of callback 'one'" in str(error.value)
