"""The one adapter that a method talks to, made of those of all families: a call about a role goes to the role's own family."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import HasRngGenerators, OnTrainStart
from fastvideo_core.contracts.adapter_check import role_parameter
from fastvideo_core.contracts.noise_ranges import noise_ranges_of, range_of, ranges_of_roles
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.contracts.validator import DistillValidator, SamplingWatch, ValidationRequest, WatchedValidator
from fastvideo_core.distributed.agreement import SharedWork
from fastvideo_core.errors import ContractError, Problem


def route(adapters: Mapping[str, Any], family: str, handles: Iterable[RoleHandle] = ()) -> Any:
    """The adapter that a method calls: the family's own where nothing is to be routed, else one with its public members.

    With several families, calls that take a role go to the adapter of the role's family, all others to the recipe's;
    `on_train_start` and `get_rng_generators` reach every adapter, and generators are named `<family>/<name>`. For roles of
    several networks every call is checked (`_check_range`). `adapters` are by family, and `family` is the recipe's. Collective.
    """
    main = adapters[family]
    has_ranges = any(ranges_of_roles(adapters[handle.family], [handle])[0] for handle in handles)
    if len(adapters) == 1 and not has_ranges and not any(handle.base for handle in handles):
        return main
    # Members are attributes of a class: from Python 3.12 on, `isinstance` of Protocols does not ask `__getattr__`.
    members: dict[str, Any] = {name: _member(main, name) for name in dir(main) if not name.startswith("_")}
    if any(isinstance(adapter, OnTrainStart) for adapter in adapters.values()):
        members["on_train_start"] = _Routed._start_all
    if any(isinstance(adapter, HasRngGenerators) for adapter in adapters.values()):
        members["get_rng_generators"] = _Routed._all_generators
    if has_ranges:
        members["noise_ranges"] = lambda self, handle: noise_ranges_of(self._adapters[handle.family], handle)
    return type("RoutedAdapter", (_Routed,), members)(adapters, family, SharedWork() if has_ranges else None)


class _Routed:
    def __init__(self, adapters: Mapping[str, Any], family: str, work: SharedWork | None) -> None:
        self._adapters, self._main, self._work = dict(adapters), adapters[family], work

    def _adapter_of(self, handle: RoleHandle, name: str, t: Tensor | None) -> Any:
        """Whom the call `name` of a role at timesteps t goes to."""
        adapter = self._adapters.get(handle.family)
        if not hasattr(adapter, name):
            found = f"'{name}' is called with role '{handle.name}', whose family '{handle.family}' has no such call"
            others = ", ".join(key for key, other in self._adapters.items() if hasattr(other, name))
            fix = "give the role a family that has it, or choose another method"
            raise ContractError(Problem(found, f"roles.{handle.name}.family", others, fix))
        if self._work is not None and t is not None and (cuts := ranges_of_roles(adapter, [handle])[0]):
            _check_range(self._work, name, handle, t, cuts)
        return adapter

    def _start_all(self) -> None:
        for adapter in self._adapters.values():
            if isinstance(adapter, OnTrainStart):
                adapter.on_train_start()

    def _all_generators(self) -> dict[str, torch.Generator]:
        several = len(self._adapters) > 1
        return {
            f"{family}/{name}" if several else name: generator
            for family, adapter in self._adapters.items()
            if isinstance(adapter, HasRngGenerators)
            for name, generator in adapter.get_rng_generators().items()
        }


def _member(main: Any, name: str) -> Any:
    """A public member of the recipe's adapter, as an attribute of the routed one's class."""
    static = inspect.getattr_static(main, name)
    if not inspect.isroutine(static):
        return property(lambda self: getattr(self._main, name), doc=getattr(static, "__doc__", None))
    signature = inspect.signature(getattr(main, name))
    role = role_parameter(signature)

    def call(self: _Routed, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        handle = given.get(role)
        if handle is None:
            return getattr(self._main, name)(*args, **kwargs)
        with handle.active():
            return getattr(self._adapter_of(handle, name, given.get("t")), name)(*args, **kwargs)

    call.__name__, call.__doc__ = name, static.__doc__
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _check_range(work: SharedWork, name: str, handle: RoleHandle, t: Tensor, cuts: Sequence[float]) -> None:
    """Raises ContractError where samples or processes would call different networks of a role at timesteps t. Collective.

    At each of `cuts` one network of the role ends and another begins.
    Sharded networks are gathered by all processes in the order of their calls: where these differ, each process computes
    with parts of another network, and nothing else tells (measured).
    """
    ends = torch.stack(t.detach().aminmax()).double().cpu()
    low, high = range_of(ends, cuts).tolist()
    parts = len(cuts) + 1
    if set(work.tell(low * parts + high)) == {low * parts + low}:
        return
    every = [end for both in work.gather(ends.tolist()) for end in both]
    found = f"'{name}' calls role '{handle.name}' at timesteps from {min(every):g} to {max(every):g} at once, and "
    found += f"other networks of the role serve them below and above {', '.join(f'{cut:g}' for cut in cuts)}"
    allowed = "timesteps of one noise range for all samples of all processes"
    fix = "choose a method that knows of noise ranges; in your own, draw timesteps with `draw_in_one_range`"
    raise ContractError(Problem(found, f"roles.{handle.name}", allowed, fix))


def route_validator(validators: Mapping[str, DistillValidator | None]) -> DistillValidator | None:
    """The validator of a run: each role is sampled by its own family's (by name), and not where that has none."""
    made = {family: validator for family, validator in validators.items() if validator is not None}
    return _RoutedValidator(made) if made else None


class _RoutedValidator:
    def __init__(self, validators: Mapping[str, DistillValidator]) -> None:
        self._validators = validators
        self.watch = SamplingWatch()

    def set_tracker(self, tracker: Tracker) -> None:
        for validator in self._validators.values():
            validator.set_tracker(tracker)

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        if (validator := self._validators.get(request.sample_handle.family)) is None:
            return
        if isinstance(validator, WatchedValidator):
            validator.watch = self.watch
        with request.sample_handle.active():
            validator.log_validation(step, request)
