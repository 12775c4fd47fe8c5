"""Which installed methods and families fit each other, as far as their classes tell: what a method needs, a family must offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from typing_extensions import is_protocol

from fastvideo_core import (
    DistillMethod,
    ModelFamily,
    PipelineConfig,
    RoleConfig,
    RunConfig,
    TrainingArgs,
)
from fastvideo_core.config.run import RecipeConfig
from fastvideo_core.contracts import adapter as primitives
from fastvideo_core.contracts.adapter_check import check_adapter, members_of
from fastvideo_core.contracts.family import family_class
from fastvideo_core.errors import ContractError, FastVideoError
from fastvideo_core.registry import Kind, Plugin, PluginRegistry
from fastvideo_tools.commands.init import required_values


@dataclass(frozen=True)
class MethodNeeds:
    """A method: the roles of run.yaml, and the primitives that it calls with its default options.

    `unknown` says why the primitives cannot be told; then there are none.
    """

    name: str
    roles: tuple[str, ...]
    optional_roles: tuple[str, ...]
    needs: tuple[str, ...]
    unknown: str = ""


@dataclass(frozen=True)
class FamilyOffers:
    """A family: the primitives that its adapter offers; `unknown` as of MethodNeeds."""

    name: str
    offers: tuple[str, ...]
    unknown: str = ""


@dataclass(frozen=True)
class Pair:
    """A method on a family: whether they fit (None: cannot be told), and why not."""

    method: str
    family: str
    fits: bool | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitting:
    """Everything that is installed; `broken` has why a plug-in is left out, by kind and name."""

    methods: tuple[MethodNeeds, ...]
    families: tuple[FamilyOffers, ...]
    pairs: tuple[Pair, ...]
    broken: tuple[str, ...]


def fitting(registry: PluginRegistry) -> Fitting:
    """Imports every installed method and family, and holds each to each."""
    broken: list[str] = []
    methods = {plugin.name: (plugin, impl) for plugin, impl in _classes("methods", registry, broken)}
    families = {plugin.name: impl for plugin, impl in _classes("models", registry, broken)}
    protocols = {name: _needed(plugin, impl, registry) for name, (plugin, impl) in methods.items()}
    adapters = {name: _adapter(family) for name, family in families.items()}
    known = [protocol for needed, _ in protocols.values() for protocol in needed]
    return Fitting(
        tuple(
            MethodNeeds(
                name,
                plugin.spec.roles,
                plugin.spec.optional_roles,
                tuple(dict.fromkeys(member for protocol in protocols[name][0] for member in members_of(protocol))),
                protocols[name][1],
            )
            for name, (plugin, _) in methods.items()
        ),
        tuple(FamilyOffers(name, _offered(adapter, known), unknown) for name, (adapter, unknown) in adapters.items()),
        tuple(
            _pair(method, needed, family, adapter)
            for method, needed in protocols.items()
            for family, adapter in adapters.items()
        ),
        tuple(broken),
    )


def _classes(kind: Kind, registry: PluginRegistry, broken: list[str]) -> Iterator[tuple[Plugin, Any]]:
    for status in registry.list(kind):
        try:
            if status.problem is not None:
                broken.append(str(status.problem))
                continue
            plugin: Plugin = registry.get(kind, status.provenance.name)
            impl: Any = family_class(plugin, registry) if kind == "models" else registry.resolve(plugin, "impl")
            if kind == "methods" and not issubclass(impl, DistillMethod):
                broken.append(f"{status.provenance}: impl is {impl.__qualname__}, which is no DistillMethod")
                continue
        except FastVideoError as error:
            broken.append(str(error))
            continue
        yield plugin, impl


def _needed(plugin: Plugin, method: Any, registry: PluginRegistry) -> tuple[tuple[type, ...], str]:
    """The Protocols that a method declares for a run with its default options; or why that cannot be told."""
    try:
        options = registry.config_class(plugin)
        cfg = RunConfig(
            recipe=RecipeConfig(family="any", method=plugin.name),
            roles={role: RoleConfig(path=".", trainable=False) for role in plugin.spec.roles},
            training=TrainingArgs(output_dir=".", max_train_steps=1),
            pipeline_config=PipelineConfig(),
            method_config=options.model_validate(required_values(options)),
            callbacks={},
            source="",
        )
        needed = method.needs(cfg)
        protocols = (needed,) if isinstance(needed, type) else tuple(needed)
        for protocol in protocols:
            members_of(protocol)
    except Exception as error:  # a plug-in's own code
        return (), f"it depends on the run ({type(error).__name__}: {error})"
    return protocols, ""


def _adapter(family: type[ModelFamily]) -> tuple[type | None, str]:
    """The class of a family's adapter, or why it cannot be told."""
    try:
        adapter = family().adapter_class()
    except Exception as error:  # a plug-in's own code
        return None, f"{type(error).__name__}: {error}"
    return adapter, "" if adapter is not None else "only building it tells (it does not define adapter_class)"


def _offered(adapter: type | None, needed: Iterable[type]) -> tuple[str, ...]:
    """Which primitives of core, and of those that installed methods need, the class has."""
    if adapter is None:
        return ()
    core = [kind for kind in vars(primitives).values() if is_protocol(kind) and kind.__module__ == primitives.__name__]
    members = [(name, protocol) for protocol in (*core, *needed) for name in members_of(protocol)]
    return tuple(dict.fromkeys(name for name, protocol in members if not _lacks(adapter, protocol, name)))


def _lacks(adapter: type, protocol: type, member: str) -> bool:
    try:
        check_adapter(adapter, protocol, method="", family="")
    except ContractError as error:
        return any(f"'{member}'" in problem.found for problem in error.problems)
    return False


def _pair(method: str, needed: tuple[tuple[type, ...], str], family: str, adapter: tuple[type | None, str]) -> Pair:
    protocols, unknown = needed
    if unknown or adapter[0] is None:
        return Pair(method, family, None, (f"{method}: {unknown}" if unknown else f"{family}: {adapter[1]}",))
    try:
        check_adapter(adapter[0], protocols, method=method, family=family)
    except ContractError as error:
        return Pair(method, family, False, tuple(problem.found for problem in error.problems))
    return Pair(method, family, True)
