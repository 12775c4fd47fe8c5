"""Find a plug-in by name, load what it declares, and say clearly why that fails."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import operator
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastvideo_core.errors import PluginError, Problem, closest, did_you_mean
from fastvideo_core.registry import discovery, registration, specs
from fastvideo_core.registry.discovery import ALLOWED, Plugin, Provenance, find_installed, misplaced, normalized
from fastvideo_core.registry.specs import API_VERSION, FIRST_PARTY, KINDS, SINGULAR, Kind

if TYPE_CHECKING:
    from fastvideo_core.config.base import PluginConfig

_T = TypeVar("_T")


@dataclass(frozen=True)
class PluginStatus:
    """One line of `fastvideo-distill plugins`; when it is BROKEN, `problem` says why and `plugin` may be None."""

    provenance: Provenance
    plugin: Plugin | None
    problem: Problem | None = None

    @property
    def healthy(self) -> bool:
        return self.problem is None


class PluginRegistry:
    """Every plug-in that is installed or was registered in this process; none is imported before it is asked for."""

    def __init__(self, installed: Sequence[Provenance] | None = None) -> None:
        self._installed = tuple(installed) if installed is not None else None

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Names of all plug-ins of a kind, BROKEN ones too, sorted."""
        return tuple(sorted({item.name for item in self._candidates(kind)}))

    def get(self, kind: Kind, name: str) -> Plugin:
        """The plug-in of a name, or of `distribution:name`; PluginError if it is unknown, ambiguous, broken or of another API."""
        distribution, _, short = name.rpartition(":")
        named = [item for item in self._candidates(kind) if item.name == short]
        chosen = [item for item in named if normalized(distribution) in ("", normalized(item.distribution))]
        if not named:
            raise PluginError(self._unknown(kind, short))
        if not chosen:
            known = [item.distribution for item in named]
            found = f"no distribution {distribution!r} offers the {SINGULAR[kind]} {short!r}"
            allowed = ", ".join(f"{dist}:{short}" for dist in known)
            raise PluginError(Problem(found, allowed=allowed, fix=did_you_mean(distribution, known)))
        if len(chosen) > 1:
            raise PluginError(_ambiguous(chosen))
        return _load(chosen[0])

    def resolve(self, plugin: Plugin, target: str) -> object:
        """Import what a field of the spec names ("impl", "config", "demo"); PluginError where it is not offered or fails."""
        value = plugin.spec.targets.get(target)
        if value is None:
            found = f"{plugin.provenance.in_words} does not offer `{target}`"
            raise PluginError(Problem(found, where=str(plugin.provenance)))
        imported = plugin.objects[target] if target in plugin.objects else _import(plugin.provenance, value, target)
        fits, wanted = target == "config" or callable(imported), "a class or function"
        if plugin.provenance.kind == "commands":
            fits, wanted = isinstance(imported, specs.Command), "a Command"
        elif target == "impl" and plugin.provenance.kind != "models":
            fits, wanted = isinstance(imported, type), "a class"
        if not fits:
            raise _unfit(plugin, target, imported, wanted)
        return imported

    def config_class(self, plugin: Plugin) -> type[PluginConfig]:
        """The class that parses the plug-in's section of run.yaml; raises PluginError as `resolve`."""
        from fastvideo_core.config.base import PluginConfig

        return self.class_of(plugin, "config", PluginConfig)

    def class_of(self, plugin: Plugin, target: str, base: type[_T]) -> type[_T]:
        """As `resolve`, of what must be a subclass of `base`."""
        found = self.resolve(plugin, target)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise _unfit(plugin, target, found, f"a subclass of {base.__module__.partition('.')[0]}.{base.__name__}")
        return found

    def list(self, *kinds: Kind) -> tuple[PluginStatus, ...]:
        """Every plug-in (of these kinds) with its health, by kind and name. Loads the spec modules, which never import torch."""
        found = [self._status(item) for kind in kinds or KINDS for item in self._candidates(kind)]
        lost = [PluginStatus(item, None, problem) for item, problem in misplaced().items()]
        return (*found, *(item for item in lost if item.provenance.kind in (kinds or KINDS)))

    def load_plugin_file(self, path: str | Path) -> tuple[Provenance, ...]:
        """Run a Python file whose decorators register plug-ins, anew if it was loaded before, and say what it registered.

        Raises PluginError where there is no such file, it fails (its line is named), or it registers nothing.
        """
        where, file = str(path), Path(path).expanduser().resolve()
        if not file.is_file() or file.suffix != ".py":
            found = "this is not a Python file" if file.exists() else "there is no such file"
            raise PluginError(Problem(found, where=where, allowed="--plugin FILE.py", fix="check the path"))
        stem = re.sub(r"\W", "_", file.stem)  # my-method.py is no module's name
        name = f"fastvideo_plugin_{stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        registration.forget_module(name)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        before = dict(registration.REGISTERED)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            registration.forget_module(name)
            if isinstance(error, PluginError):
                raise
            fix = _missing_package(error, name)[1]
            raise PluginError(Problem(f"the file fails: {_cause(error)}", where=where, fix=fix)) from error
        added = tuple(item for item, plugin in registration.REGISTERED.items() if before.get(item) is not plugin)
        if not added:
            fix = "decorate your class with @register_method(...), or a build function with @register_model(...)"
            raise PluginError(Problem("the file registers no plug-in", where=where, fix=fix))
        return added

    def _candidates(self, kind: Kind) -> Sequence[Provenance]:
        if self._installed is None:
            self._installed = find_installed()
        found = [item for item in (*self._installed, *registration.REGISTERED) if item.kind == kind]
        return sorted(found, key=lambda item: item.name)

    def _unknown(self, kind: Kind, name: str) -> Problem:
        known, packages = self.names(kind), FIRST_PARTY[kind]
        listed = (", ".join(known) or "none") + (f"; {ALLOWED} may hide more" if ALLOWED in os.environ else "")
        for item, problem in misplaced().items():
            if (item.kind, item.name) == (kind, name):
                return problem
        others = [other for other in KINDS if name in self.names(other)]
        fix = "see `fastvideo-distill plugins`, or install the package that brings it"
        if name in packages:
            fix = f"pip install {packages[name]}"
        elif others:
            fix = f"{name!r} is a {SINGULAR[others[0]]}, not a {SINGULAR[kind]}"
        elif guess := closest(name, [*known, *packages]):
            fix = f"did you mean {guess!r}?" + ("" if guess in known else f" pip install {packages[guess]}")
        return Problem(f"no {SINGULAR[kind]} {name!r} is installed (installed: {listed})", fix=fix)

    def _status(self, provenance: Provenance) -> PluginStatus:
        try:
            plugin = _load(provenance)
            for field, value in plugin.spec.targets.items():
                if value and field not in plugin.objects and not _module_exists(value.partition(":")[0]):
                    raise _broken(provenance, f"its `{field}` is declared as {value}, and that module does not exist")
            twins = [item for item in self._candidates(provenance.kind) if item.name == provenance.name]
            problem = _ambiguous(twins) if len(twins) > 1 else None
        except PluginError as error:
            plugin, problem = None, error.problems[0]
        return PluginStatus(provenance, plugin, problem)


def _load(provenance: Provenance) -> Plugin:
    """A plug-in, its spec checked."""
    local = registration.REGISTERED.get(provenance)
    spec = local.spec if local is not None else _import(provenance, provenance.value, "its spec")
    wanted = specs.SPEC_TYPES[provenance.kind]
    if not isinstance(spec, wanted):
        takes = f"fastvideo.{provenance.kind} takes {wanted.__name__}"
        raise _broken(provenance, f"the entry point gives {type(spec).__name__} {spec!r}, but {takes}")
    if flaws := spec.flaws():
        raise _broken(provenance, f"its {wanted.__name__} is wrong: {'; '.join(flaws)}")
    if isinstance(spec, specs.CommandPlugin) and FIRST_PARTY["commands"].get(spec.name) == "fastvideo-core":
        raise _broken(provenance, "core has a command of that name itself")
    if spec.name != provenance.name:
        raise _broken(provenance, f"the entry point is named {provenance.name!r} but its spec is named {spec.name!r}")
    if spec.api[0] != API_VERSION[0] or spec.api > API_VERSION:
        raise PluginError(_api_mismatch(provenance, spec.api))
    return local if local is not None else Plugin(spec, provenance)


def _import(provenance: Provenance, value: str, target: str) -> Any:
    """Import `module:attr` of a plug-in; every failure becomes a PluginError."""
    module_name, _, attribute = value.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _import_error(provenance, module_name, error) from error
    try:
        return operator.attrgetter(attribute)(module) if attribute else module
    except AttributeError:
        what = target if " " in target else f"its `{target}`"
        guess = f"; {guess}" if (guess := did_you_mean(attribute, vars(module))) else ""
        cause = f"{what} is declared as {value}, but {module_name} has no {attribute!r}{guess}"
        raise _broken(provenance, cause) from None


def _module_exists(name: str) -> bool:
    """Whether `import name` would find a module; imports its parents alone."""
    with contextlib.suppress(ImportError):
        return name in sys.modules or importlib.util.find_spec(name) is not None
    return False


def _import_error(provenance: Provenance, module: str, error: BaseException) -> PluginError:
    """The likely cause is what its distribution asks for and has not."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return _broken(provenance, f"its module {error.name} does not exist")
    unmet = provenance.unmet
    cause = f"importing {module} fails: {_cause(error)}"
    missing, fix = _missing_package(error, module)
    if missing:
        unmet = tuple(item for item in unmet if item.there == discovery.NOTHING)
        cause = f"the plug-in is installed, but {missing!r}, which it imports, is not"
    if unmet:
        fix = f"{discovery.pip_command(unmet)}   ({provenance.distribution} {'; '.join(map(str, unmet))})"
    return _broken(provenance, cause, fix)


def _missing_package(error: BaseException, module: str) -> tuple[str, str]:
    """The module of another package whose absence makes importing `module` fail, and what to do; "" if that is not why."""
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    package = missing.partition(".")[0]
    if package in ("", module.partition(".")[0]):
        return "", ""
    return missing, f"install the package that brings the module {package!r}, usually `pip install {package}`"


def _cause(error: BaseException) -> str:
    """`TypeError: message (file.py:12)`, the place being the innermost one outside the import machinery."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def _broken(provenance: Provenance, cause: str, fix: str = "") -> PluginError:
    if not fix and provenance.installed:
        name = provenance.distribution
        fix = f"pip install --upgrade --force-reinstall --no-deps {name}, or pip uninstall {name}, or tell its authors"
    return PluginError(Problem(f"{provenance.in_words} is broken: {cause}", where=str(provenance), fix=fix))


def _unfit(plugin: Plugin, target: str, found: object, wanted: str) -> PluginError:
    return _broken(plugin.provenance, f"its `{target}` {plugin.spec.targets[target]} is {found!r}, not {wanted}")


def _ambiguous(twins: Sequence[Provenance]) -> Problem:
    kind, name = twins[0].kind, twins[0].name
    found = f"{len(twins)} plug-ins are named {name!r}: " + "; ".join(str(twin) for twin in twins)
    if len({normalized(twin.distribution) for twin in twins}) < len(twins):
        return Problem(found, fix=f"keep one {SINGULAR[kind]} of that name")
    picks = " or ".join(f"{twin.distribution}:{name}" for twin in twins)
    return Problem(found, allowed=picks, fix="write one of these instead of the name, or uninstall the other")


def _api_mismatch(provenance: Provenance, api: tuple[int, int]) -> Problem:
    major, minor = API_VERSION
    found = f"{provenance.in_words} is made for API {api[0]}.{api[1]}, this core has API {major}.{minor}"
    allowed = f"{major}.0 to {major}.{minor}" if minor else f"{major}.0"
    upgrade = f"pip install --upgrade {provenance.distribution}" if provenance.installed else f"port {provenance}"
    fixes = [upgrade, "pip install --upgrade fastvideo-core"]
    first, second = fixes if api < API_VERSION else reversed(fixes)
    return Problem(found, where=str(provenance), allowed=allowed, fix=f"{first}   (or: {second})")
