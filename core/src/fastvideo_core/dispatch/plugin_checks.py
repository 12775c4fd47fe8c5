"""The plug-ins of a run: their classes, and whether they fit each other as far as these alone can tell."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastvideo_core.callbacks.hooks import Callback
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.config.base import StrictModel
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter_check import check_adapter
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.errors import ContractError, FastVideoError, PluginError, Problem
from fastvideo_core.registry import Plugin, PluginRegistry
from fastvideo_core.registry.discovery import NOTHING, pip_command, unmet_of


def used_plugins(cfg: RunConfig, registry: PluginRegistry) -> Iterator[Plugin]:
    """The method, the families and the callbacks of a run."""
    yield registry.get("methods", cfg.recipe.method)
    yield from (registry.get("models", family) for family in cfg.families)
    yield from (registry.get("callbacks", name) for name in cfg.callbacks)


def check_requirements(cfg: RunConfig, registry: PluginRegistry) -> tuple[list[Problem], list[str]]:
    """What the run's plug-ins need and is not installed; what is in another version, which may do, and what is deprecated."""
    problems, notes = [], []
    for provenance in (plugin.provenance for plugin in used_plugins(cfg, registry) if plugin.provenance.installed):
        unmet = unmet_of(provenance.distribution)
        if missing := [item for item in unmet if item.there == NOTHING]:
            wanted = ", ".join(item.wanted for item in missing)
            found = f"{provenance.distribution} needs what is not installed: {wanted}"
            problems.append(Problem(found, where=str(provenance), fix=pip_command(missing)))
        notes += [f"{provenance.distribution} {item}: {pip_command([item])}" for item in unmet if item not in missing]
    return problems, [*notes, *deprecations(cfg, registry)]


def deprecations(cfg: RunConfig, registry: PluginRegistry) -> Iterator[str]:
    """What of a run is deprecated, plug-ins and options that run.yaml names, and what to use instead."""
    for plugin in used_plugins(cfg, registry):
        if plugin.spec.deprecated is not None:
            who = f"{plugin.provenance.in_words} of {plugin.provenance.distribution}"
            yield f"{who} is deprecated {plugin.spec.deprecated}"
    sections = {"pipeline_config": cfg.pipeline_config, "method_config": cfg.method_config}
    sections |= {f"callbacks.{name}": section for name, section in cfg.callbacks.items()}
    for place, section in sections.items():
        yield from _deprecated_options(place, section)


def _deprecated_options(place: str, section: StrictModel) -> Iterator[str]:
    for name, value in section:  # not by attributes: pydantic warns of those that are deprecated
        info = type(section).model_fields[name]
        if name in section.model_fields_set and info.deprecated:
            yield f"{place}.{name} is deprecated {info.deprecation_message}"
        if name in section.model_fields_set and isinstance(value, StrictModel):
            yield from _deprecated_options(f"{place}.{name}", value)


def method_class(name: str, registry: PluginRegistry) -> type[DistillMethod]:
    """The class of a method; raises PluginError where it cannot be imported, or is no DistillMethod."""
    # "type-abstract": what comes back is a subclass, and is not abstract.
    return registry.class_of(registry.get("methods", name), "impl", DistillMethod)  # type: ignore[type-abstract]


def build_callbacks(cfg: RunConfig, registry: PluginRegistry) -> CallbackManager:
    """The run's callbacks; raises PluginError where one cannot be imported or made, or its hooks do not exist."""
    callbacks: dict[str, Callback] = {}
    for name, section in cfg.callbacks.items():
        plugin = registry.get("callbacks", name)
        implementation = registry.class_of(plugin, "impl", Callback)
        try:
            callbacks[name] = implementation(section)
        except FastVideoError:
            raise
        except Exception as error:
            found = f"the callback {name!r} cannot be made: {type(error).__name__}: {error}"
            fix = "tell its authors: it gets its section of run.yaml alone"
            raise PluginError(Problem(found, where=str(plugin.provenance), fix=fix)) from error
    return CallbackManager(callbacks, waived=cfg.training.resume_without_callbacks)


def check_adapters(cfg: RunConfig, needed: type | Iterable[type], adapters: Mapping[str, Any]) -> None:
    """As `check_adapter`, of every family's adapter or its class, where there is one.

    Only the recipe's needs the calls that take no role. ContractError lists everything that is missing in any of them.
    """
    problems: list[Problem] = []
    for family, adapter in adapters.items():
        beside = family != cfg.recipe.family
        try:
            if adapter is not None:
                check_adapter(adapter, needed, method=cfg.recipe.method, family=family, roles_only=beside)
        except ContractError as error:
            problems += error.problems
    if problems:
        raise ContractError(problems)
