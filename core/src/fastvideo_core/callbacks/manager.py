"""A run's callbacks: registered with pluggy, called in their declared order, and one part of the checkpoint."""

import functools
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any, cast

import pluggy

from fastvideo_core.callbacks.hooks import HOOKS, PROJECT, Callback, RunHooks
from fastvideo_core.errors import CheckpointError, FastVideoError, PluginError, Problem, did_you_mean

logger = logging.getLogger(__name__)

_MARK = f"{PROJECT}_impl"


class CallbackError(FastVideoError):
    """A callback raised; the message names it and its hook, the cause is kept."""


class CallbackManager:
    """The callbacks of one run, by their names in run.yaml.

    `hook` relays calls to all of them by keyword: `callbacks.hook.step_end(method=method, step=3, metrics=metrics)`.
    `waived` callbacks need no state at resume: what the checkpoint holds for one that this run has not is dropped, and
    one that the checkpoint does not know starts afresh. Raises PluginError where a hook does not exist, takes arguments
    that do not exist, or lacks `@hookimpl`.
    """

    def __init__(self, callbacks: Mapping[str, Callback], waived: Collection[str] = ()) -> None:
        problems = [problem for name, callback in callbacks.items() for problem in _problems(name, callback)]
        if problems:
            raise PluginError(problems)
        ordered = sorted(callbacks, key=lambda name: (callbacks[name].order, name))
        self.waived = frozenset(waived)
        self.callbacks: dict[str, Callback] = {name: callbacks[name] for name in ordered}
        plugins = pluggy.PluginManager(PROJECT)
        plugins.add_hookspecs(RunHooks)
        try:
            for name in reversed(ordered):  # pluggy calls the last registered first
                guarded = ModuleType(name)  # pluggy takes anything that has functions
                vars(guarded).update({hook: _guard(name, callbacks[name], hook) for hook in _marked(callbacks[name])})
                plugins.register(guarded, name)
            plugins.check_pending()
        except pluggy.PluginValidationError as error:
            name = cast(ModuleType, error.plugin).__name__
            fix = next((did_you_mean(hook, HOOKS) for hook in _marked(callbacks[name]) if hook not in HOOKS), "")
            raise PluginError(Problem(str(error), f"callback '{name}'", ", ".join(HOOKS), fix)) from error
        self.hook: RunHooks = cast(RunHooks, plugins.hook)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The state of every callback that has one, by its name."""
        states = {name: callback.state_dict() for name, callback in self.callbacks.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Gives every callback its state back; raises CheckpointError where `misfits` finds any."""
        if problems := self.misfits(state):
            raise CheckpointError(problems)
        for name, callback in self.callbacks.items():
            if name in self.waived and name not in state:
                callback.start_afresh()
            else:
                callback.load_state_dict(state.get(name, {}))

    def misfits(self, state: Mapping[str, dict[str, Any]]) -> list[Problem]:
        """What of the stored states does not fit this run; may be asked before `train_start`."""
        problems = []
        for name in sorted({*state, *self.callbacks}):
            waiver = f"set training.resume_without_callbacks: [{name}]"
            callback = self.callbacks.get(name)
            if callback is not None and name in state:
                problems += callback.misfits(state[name])
                continue
            if callback is None:
                found = f"the checkpoint holds the state of callback '{name}', which this run does not have"
                has = f"this run has: {', '.join(self.callbacks) or 'no callbacks'}"
                fix = f"add '{name}' to the callbacks section of run.yaml, or {waiver} to drop its state"
            else:
                found = f"the checkpoint holds no state of callback '{name}'"
                has = f"it holds that of: {', '.join(state) or 'no callback'}"
                fix = f"remove '{name}' from the callbacks section of run.yaml, or {waiver} to start it afresh"
            if name not in self.waived and (callback is None or callback.state_dict()):
                problems.append(Problem(found, "callbacks", has, fix))
        return problems

    def stops(self, step: int) -> bool:
        """Whether a callback asks for the run to end with this step."""
        return any(cast("list[bool | None]", self.hook.stop_requested(step=step)))


def _marked(callback: Callback) -> list[str]:
    """The methods that have `@hookimpl`."""
    kind = type(callback)
    return [name for name in dir(kind) if hasattr(inspect.getattr_static(kind, name), _MARK)]


def _guard(name: str, callback: Callback, hook: str) -> Callable[..., Any]:
    """A callback's hook, which names both when it fails."""
    implementation: Callable[..., Any] = getattr(callback, hook)

    @functools.wraps(implementation)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return implementation(*args, **kwargs)
        except FastVideoError:
            raise  # says itself what is wrong and where
        except Exception as error:
            message = f"callback '{name}' failed in its hook '{hook}': {type(error).__name__}: {error}"
            if hook == "exception":  # must not hide the error that the run ends with
                logger.error(message, exc_info=error)
                return None
            raise CallbackError(message) from error

    return call


def _problems(name: str, callback: Callback) -> list[Problem]:
    """What pluggy would pass over in silence: a hook without its mark, and arguments that it would never give."""
    problems, marked = [], _marked(callback)
    for hook in HOOKS:
        where = f"callback '{name}', {type(callback).__name__}.{hook}"
        if hook in marked:
            given = list(inspect.signature(getattr(RunHooks, hook)).parameters)[1:]
            fitting = [inspect.Parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in given]
            taken = inspect.signature(getattr(callback, hook)).parameters.values()
            if unfit := [str(one) for one in taken if one.replace(annotation=inspect.Parameter.empty) not in fitting]:
                found = f"takes {', '.join(unfit)}, which the hook does not give"
                problems.append(Problem(found, where, f"any of: {', '.join(given)}, without default values"))
        elif hasattr(callback, hook):
            fix = "decorate it with @hookimpl"
            problems.append(Problem("has the name of a hook but is not marked as one", where, fix=fix))
    return problems
