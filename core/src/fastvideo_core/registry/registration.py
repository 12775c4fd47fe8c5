"""Register plug-ins from running code: notebooks, tests and single-file research (`--plugin ./my_method.py`)."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastvideo_core.errors import PluginError, Problem
from fastvideo_core.registry.discovery import Plugin, Provenance
from fastvideo_core.registry.specs import API_VERSION, SPEC_TYPES, Kind

Decorated = TypeVar("Decorated", bound=Callable[..., object])

REGISTERED: dict[Provenance, Plugin] = {}
"""What the decorators of this process have registered so far, oldest first."""


def forget_module(module: str) -> None:
    """Forget what a module has registered, so that it can be loaded anew."""
    for provenance in list(REGISTERED):
        if provenance.value.partition(":")[0] == module:
            del REGISTERED[provenance]


def register_model(
    name: str,
    *,
    config: type | str,
    pipelines: tuple[str, ...] = (),
    api: tuple[int, int] = API_VERSION,
    deprecated: str | None = None,
) -> Callable[[Decorated], Decorated]:
    """Register the decorated ModelFamily class, or a bare build function (RunConfig -> ModelComponents); see ModelPlugin."""
    return registering("models", name, api, config=config, pipelines=pipelines, deprecated=deprecated)


def register_method(
    name: str,
    *,
    config: type | str,
    roles: tuple[str, ...],
    optional_roles: tuple[str, ...] = (),
    demo: Callable[..., object] | str | None = None,
    api: tuple[int, int] = API_VERSION,
    deprecated: str | None = None,
) -> Callable[[Decorated], Decorated]:
    """Register the decorated DistillMethod class; see MethodPlugin."""
    optional = {"optional_roles": optional_roles, "demo": demo, "deprecated": deprecated}
    return registering("methods", name, api, config=config, roles=roles, **optional)


def register_callback(
    name: str, *, config: type | str, api: tuple[int, int] = API_VERSION, deprecated: str | None = None
) -> Callable[[Decorated], Decorated]:
    """Register the decorated callback class; see CallbackPlugin."""
    return registering("callbacks", name, api, config=config, deprecated=deprecated)


def registering(kind: Kind, name: str, api: tuple[int, int], **fields: Any) -> Callable[[Decorated], Decorated]:
    """Registers what it decorates as the `impl` of a plug-in with these other fields, objects in place of their names."""
    spec_type: Any = SPEC_TYPES[kind]

    def register(impl: Decorated) -> Decorated:
        given: dict[str, Any] = spec_type(name, api, impl=impl, **fields).targets
        spec = spec_type(name, api, **fields | {field: _target(item) for field, item in given.items()})
        module = spec.targets["impl"].partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        origin = Path(file).name if isinstance(file, str) else module
        provenance = Provenance(kind, name, origin, "", spec.targets["impl"], installed=False)
        flaws = spec.flaws()
        if not (callable(impl) if kind == "models" else isinstance(impl, type)):
            wanted = "neither a class nor a function" if kind == "models" else "not a class"
            flaws.append(f"the decorated object is {impl!r}, {wanted}")
        if flaws:
            problem = f"{provenance.in_words} is registered wrongly: {'; '.join(flaws)}"
            raise PluginError(Problem(problem, where=str(provenance)))
        objects = {field: item for field, item in given.items() if item is not None and not isinstance(item, str)}
        # A notebook cell that runs again replaces its own.
        REGISTERED[provenance] = Plugin(spec, provenance, objects)
        return impl

    return register


def _target(value: Any) -> Any:
    """`module:attr` of an object, as a name for messages; a text is such a name already."""
    if value is None or isinstance(value, str):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)
    # A lambda's name is no identifier, and a plug-in may be one.
    name = named.__qualname__.replace("<locals>.", "").translate(str.maketrans("<>", "__"))
    return f"{getattr(value, '__module__', type(value).__module__)}:{name}"
