"""A run's adapters as the one that its method talks to: what is said of a role goes to the role's own family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import HasRngGenerators, OnTrainStart, check_adapter, role_parameter
from fastvideo_core.contracts.noise_ranges import RangeCheck, axis_length, noise_ranges_of
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.contracts.validator import (
    DistillValidator,
    SamplingWatch,
    Unwatched,
    ValidationRequest,
    WatchedValidator,
)
from fastvideo_core.diffusion.noise_ranges import Ranges, boundaries
from fastvideo_core.errors import ContractError, Problem


def route(adapters: Mapping[str, Any], family: str, handles: Iterable[RoleHandle] = ()) -> Any:
    """The adapter that a method calls: the family's own where nothing is to be routed, else one with its public members.

    With several families, calls that take a role go to the adapter of the role's family, all others to the recipe's;
    `on_train_start` and `get_rng_generators` reach every adapter, and generators are named `<family>/<name>`. For roles of
    several networks every call is checked by `RangeCheck`. Collective.

    Args:
        adapters: by family, as `RoleHandle.family` names it.
        family: the recipe's.
        handles: the roles.
    """
    main = adapters[family]
    has_ranges = any(
        boundaries([noise_ranges_of(adapters[handle.family], handle)], axis_length(adapters[handle.family]))
        for handle in handles
    )
    if len(adapters) == 1 and not has_ranges:
        return main
    members: dict[str, Any] = {name: _member(main, name) for name in dir(main) if not name.startswith("_")}
    if any(isinstance(adapter, OnTrainStart) for adapter in adapters.values()):
        members["on_train_start"] = _start_all
    if any(isinstance(adapter, HasRngGenerators) for adapter in adapters.values()):
        members["get_rng_generators"] = _all_generators
    if has_ranges:
        members["noise_ranges"] = _noise_ranges
    # Members are attributes of a class: from Python 3.12 on, `isinstance` of Protocols does not ask `__getattr__`.
    return type("RoutedAdapter", (_Routed,), members)(adapters, family, RangeCheck() if has_ranges else None)


def check_adapters(adapter: Any, needed: type | Iterable[type], *, method: str, family: str) -> None:
    """As `check_adapter`, of every family's adapter: other ones than the recipe's need only calls that take a role.

    Raises:
        ContractError: listing everything that is missing in any of them.
    """
    problems: list[Problem] = []
    adapters = adapter._adapters if isinstance(adapter, _Routed) else {family: adapter}
    for name, one in adapters.items():
        try:
            check_adapter(one, needed, method=method, family=name, roles_only=name != family)
        except ContractError as error:
            problems += error.problems
    if problems:
        raise ContractError(problems)


class _Routed:
    def __init__(self, adapters: Mapping[str, Any], family: str, check: RangeCheck | None) -> None:
        self._adapters = dict(adapters)
        self._main = adapters[family]
        self._check = check

    def _call(
        self, name: str, handle: RoleHandle, t: Tensor | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The one place where a call goes to the adapter of a role."""
        adapter = self._adapters.get(handle.family)
        call = getattr(adapter, name, None)
        if call is None:
            raise ContractError(
                Problem(
                    found=f"'{name}' is called with role '{handle.name}', whose family '{handle.family}' has no such call",
                    where=f"roles.{handle.name}.family",
                    allowed=", ".join(key for key, adapter in self._adapters.items() if hasattr(adapter, name)),
                    fix="give the role a family that has it, or choose another method",
                )
            )
        if self._check is not None and t is not None:
            self._check(adapter, name, handle, t)
        return call(*args, **kwargs)


def _member(adapter: Any, name: str) -> Any:
    """A public member of the recipe's adapter, as an attribute of the routed one's class."""
    static = inspect.getattr_static(adapter, name)
    if not inspect.isroutine(static):
        return property(lambda self: getattr(self._main, name), doc=getattr(static, "__doc__", None))
    signature = inspect.signature(getattr(adapter, name))
    call = _sender(name, signature)
    call.__name__, call.__doc__ = name, static.__doc__
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _sender(name: str, signature: inspect.Signature) -> Callable[..., Any]:
    """Sends the call `name` to the adapter of the role that it takes, or to the recipe's when it takes none."""
    position = role_parameter(signature)
    if position is None:
        return lambda self, *args, **kwargs: getattr(self._main, name)(*args, **kwargs)
    names = list(signature.parameters)
    handle_at = (position, names[position])
    t_at = (names.index("t") if "t" in names else len(names), "t")

    def by_handle(self: _Routed, *args: Any, **kwargs: Any) -> Any:
        handle = _argument(handle_at, args, kwargs)
        if handle is None:
            return getattr(self._main, name)(*args, **kwargs)
        return self._call(name, handle, _argument(t_at, args, kwargs), args, kwargs)

    return by_handle


def _argument(place: tuple[int, str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    index, name = place
    return args[index] if len(args) > index else kwargs.get(name)


def _start_all(self: _Routed) -> None:
    for adapter in self._adapters.values():
        if isinstance(adapter, OnTrainStart):
            adapter.on_train_start()


def _noise_ranges(self: _Routed, handle: RoleHandle) -> Ranges:
    return noise_ranges_of(self._adapters[handle.family], handle)


def _all_generators(self: _Routed) -> dict[str, torch.Generator]:
    several = len(self._adapters) > 1
    return {
        f"{family}/{name}" if several else name: generator
        for family, adapter in self._adapters.items()
        if isinstance(adapter, HasRngGenerators)
        for name, generator in adapter.get_rng_generators().items()
    }


def route_validator(validators: Mapping[str, DistillValidator | None]) -> DistillValidator | None:
    """The validator of a run: with one family its own; with several, each role is sampled by its own family's.

    A role whose family has none is not sampled.

    Args:
        validators: by family.
    """
    made = {family: validator for family, validator in validators.items() if validator is not None}
    if len(validators) == 1 or not made:
        return next(iter(made.values()), None)
    return _RoutedValidator(made)


class _RoutedValidator:
    def __init__(self, validators: Mapping[str, DistillValidator]) -> None:
        self._validators = validators
        self._watch: SamplingWatch = Unwatched()

    @property
    def watch(self) -> SamplingWatch:
        return self._watch

    @watch.setter
    def watch(self, watch: SamplingWatch) -> None:
        self._watch = watch
        for validator in self._validators.values():
            if isinstance(validator, WatchedValidator):
                validator.watch = watch

    def set_tracker(self, tracker: Tracker) -> None:
        for validator in self._validators.values():
            validator.set_tracker(tracker)

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        if (validator := self._validators.get(request.sample_handle.family)) is not None:
            validator.log_validation(step, request)
