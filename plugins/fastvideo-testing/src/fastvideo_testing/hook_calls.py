"""What a callback does inside its hooks: every call is watched, and says what it did that it must not do."""

from __future__ import annotations

import functools
import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fastvideo_core.callbacks.hooks import PROJECT
from fastvideo_testing.swallowed import ErrorsSeen


class HookWatch:
    """Sees every hook's call, before and after; by itself it sees nothing."""

    def before(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """The hook is about to run, with these arguments of those that it takes."""

    def after(self, hook: str, arguments: Mapping[str, Any], returned: Any) -> None:
        """The hook ended without an error."""

    def left(self) -> None:
        """The hook ended, with one or without."""


@contextmanager
def watched(callback: type, watch: HookWatch) -> Iterator[None]:
    """Inside, `watch` sees the hooks of the class's new instances, and the making of one as the hook `__init__`."""
    marked = [name for name in dir(callback) if hasattr(inspect.getattr_static(callback, name), f"{PROJECT}_impl")]
    with ExitStack() as patches:
        for name in ("__init__", *marked):
            wrapper = _watched(name, inspect.getattr_static(callback, name), watch)
            patches.enter_context(mock.patch.object(callback, name, wrapper))
        yield


def _watched(hook: str, implementation: Callable[..., Any], watch: HookWatch) -> Callable[..., Any]:
    signature = inspect.signature(implementation)

    @functools.wraps(implementation)  # the hook's mark and signature too
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        watch.before(hook, arguments)
        try:
            returned = implementation(*args, **kwargs)
            watch.after(hook, arguments, returned)
        finally:
            watch.left()
        return returned

    return call


class Generators(HookWatch):
    """`found` has hook and library of every draw from a global generator."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._states: dict[str, bytes] = {}

    def before(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._states = _states()

    def after(self, hook: str, arguments: Mapping[str, Any], returned: Any) -> None:
        after = _states()
        self.found += [f"{hook} moves {name}" for name, state in self._states.items() if state != after[name]]


def _states() -> dict[str, bytes]:
    return {
        "torch's global generator": bytes(torch.get_rng_state().numpy()),
        "Python's module random": repr(random.getstate()).encode(),
        "NumPy's global generator": repr(np.random.get_state(legacy=False)).encode(),
    }


class Metrics(HookWatch):
    """`found` says what is wrong with the metrics that hooks add, and which of others they change; `added` has their names."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.added: set[Any] = set()
        self._before: dict[str, tuple[Any, Any]] = {}

    def before(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._before = {name: (value, _kept(value)) for name, value in arguments.get("metrics", {}).items()}

    def after(self, hook: str, arguments: Mapping[str, Any], returned: Any) -> None:
        metrics = arguments.get("metrics", {})
        for name, (value, kept) in self._before.items():
            if name not in metrics or metrics[name] is not value or _kept(value) != kept:
                self.found.append(
                    f"{hook} changes the metric {name!r}, which is another's: add one under a name of your own"
                )
        for name, value in metrics.items():
            if name not in self._before:
                self.added.add(name)
                if wrong := _wrong(name, value):
                    self.found.append(f"{hook} adds the metric {name!r}, {wrong}")


def _kept(value: Any) -> Any:
    return value._version if isinstance(value, Tensor) else value


def _wrong(name: Any, value: Any) -> str:
    if not isinstance(name, str):
        return f"whose name is a {type(name).__name__}, not a text"
    if isinstance(value, Tensor):
        if value.requires_grad:
            return "a tensor with its graph, which keeps a step's memory until it is logged: detach it"
        if value.ndim > 1:
            return f"a tensor of shape {list(value.shape)}: only [] and [N] can be logged"
        finite = bool(torch.isfinite(value).all())
    elif isinstance(value, (bool, int, float, np.number)):
        finite = math.isfinite(value)
    else:
        return f"a {type(value).__name__}, not a number or a tensor"
    return (
        ""
        if finite
        else (
            f"which is {value}: JSON has no such number, and means over steps become the same; leave it out of a step that "
            "has none, and look for a division by zero"
        )
    )


class Errors(HookWatch):
    """`found` says which errors hooks hide."""

    def __init__(self, callback: type) -> None:
        self.found: list[str] = []
        self._seen = ErrorsSeen(callback)

    def before(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._seen.start()

    def after(self, hook: str, arguments: Mapping[str, Any], returned: Any) -> None:
        self.found += [f"{hook} hides {error}" for error in self._seen.hidden()]

    def left(self) -> None:
        self._seen.stop()
