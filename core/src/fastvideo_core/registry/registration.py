"""Register plug-ins from running code: notebooks, tests and single-file research (`--plugin ./my_method.py`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fastvideo_core.errors import PluginError, Problem
from fastvideo_core.registry.discovery import Provenance
from fastvideo_core.registry.specs import API_VERSION, SINGULAR, CallbackPlugin, Kind, MethodPlugin, ModelPlugin, Spec

_NO_BRACKETS = str.maketrans("<>", "__")
"""A lambda's name is no identifier, and a plug-in may be one."""

Decorated = TypeVar("Decorated", bound=Callable[..., object])
ClassType = TypeVar("ClassType", bound=type)


@dataclass(frozen=True)
class Registration:
    """A plug-in that running code registered.

    Attributes:
        objects: the spec's targets that were given as objects, by field; the others are imported by name.
    """

    spec: Spec
    provenance: Provenance
    objects: dict[str, object] = field(default_factory=dict)


_registrations: list[Registration] = []


def registrations() -> tuple[Registration, ...]:
    """What the decorators of this process have registered so far, oldest first."""
    return tuple(_registrations)


@contextmanager
def isolated_registrations() -> Iterator[None]:
    """Registrations made inside are forgotten at the end, and those made before are unseen: for tests."""
    before = _registrations[:]
    _registrations.clear()
    try:
        yield
    finally:
        _registrations[:] = before


def forget_module(module: str) -> None:
    """Forget what a module has registered, so that it can be loaded anew."""
    _registrations[:] = [item for item in _registrations if item.provenance.value.partition(":")[0] != module]


def register_model(
    name: str,
    *,
    config: type | str,
    pipelines: tuple[str, ...] = (),
    api: tuple[int, int] = API_VERSION,
) -> Callable[[Decorated], Decorated]:
    """Register the decorated ModelFamily class, or a bare build function (RunConfig -> ModelComponents); see ModelPlugin."""

    def register(impl: Decorated) -> Decorated:
        spec = ModelPlugin(name, api, _target(impl) or "", _target(config) or "", pipelines)
        _register("models", spec, {"impl": impl, "config": config})
        return impl

    return register


def register_method(
    name: str,
    *,
    config: type | str,
    roles: tuple[str, ...],
    optional_roles: tuple[str, ...] = (),
    demo: Callable[..., object] | str | None = None,
    api: tuple[int, int] = API_VERSION,
) -> Callable[[ClassType], ClassType]:
    """Register the decorated DistillMethod class; see MethodPlugin."""

    def register(impl: ClassType) -> ClassType:
        spec = MethodPlugin(
            name, api, _target(impl) or "", _target(config) or "", roles, optional_roles, demo=_target(demo)
        )
        _register("methods", spec, {"impl": impl, "config": config, "demo": demo})
        return impl

    return register


def register_callback(
    name: str, *, config: type | str, api: tuple[int, int] = API_VERSION
) -> Callable[[ClassType], ClassType]:
    """Register the decorated callback class; see CallbackPlugin."""

    def register(impl: ClassType) -> ClassType:
        spec = CallbackPlugin(name, api, _target(impl) or "", _target(config) or "")
        _register("callbacks", spec, {"impl": impl, "config": config})
        return impl

    return register


def _target(value: object) -> str | None:
    """`module:attr` of an object, as a name for messages; a text is such a name already."""
    if value is None or isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', type(value).__module__)}:{name}".replace("<locals>.", "").translate(
        _NO_BRACKETS
    )


def _register(kind: Kind, spec: Spec, given: dict[str, object]) -> None:
    value = spec.target("impl") or ""
    provenance = Provenance(kind, spec.name, _origin(value.partition(":")[0]), "", value, installed=False)
    flaws = spec.flaws()
    is_class, is_function = isinstance(given["impl"], type), callable(given["impl"])
    if kind != "models" and not is_class:
        flaws.append(f"the decorated object is {given['impl']!r}, not a class")
    if kind == "models" and not is_class and not is_function:
        flaws.append(f"the decorated object is {given['impl']!r}, neither a class nor a function")
    if flaws:
        problem = f"the {SINGULAR[kind]} {spec.name!r} is registered wrongly: {'; '.join(flaws)}"
        raise PluginError(Problem(problem, where=str(provenance)))
    objects = {field: item for field, item in given.items() if item is not None and not isinstance(item, str)}
    # A notebook cell that runs again replaces what it registered before.
    _registrations[:] = [item for item in _registrations if item.provenance != provenance]
    _registrations.append(Registration(spec, provenance, objects))


def _origin(module: str) -> str:
    """What the user would call the place of a registration: its file's name, else its module."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).name if isinstance(file, str) else module
