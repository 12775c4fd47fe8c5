"""Read run.yaml into a RunConfig: config says what values may be, the registry says who reads which section."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fastvideo_core.config.base import PluginConfig, StrictModel, path_text, plain
from fastvideo_core.config.check import Contradiction, role_contradictions, training_contradictions
from fastvideo_core.config.document import Document, KeyPath, dotted, key_path, read_document
from fastvideo_core.config.foreign_names import is_fastvideo
from fastvideo_core.config.problems import ProblemCollector, show, unknown_key, validation_problems
from fastvideo_core.config.run import RecipeConfig, RoleConfig, RunConfig
from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, PluginError, Problem, closest, did_you_mean, foreign_file
from fastvideo_core.registry import Kind, Plugin, PluginRegistry
from fastvideo_core.registry.specs import MethodPlugin

REQUIRED_SECTIONS = ("recipe", "roles", "training")
SECTIONS = (*REQUIRED_SECTIONS, "pipeline_config", "pipeline_config_path", "method_config", "callbacks")

_TELL = "remove what is unusual in it; with --debug the place in the program is shown, for a report"
_ROLE_NAME = re.compile(r"[^\W\d][\w-]*")

Model = TypeVar("Model", bound=StrictModel)


def load_run_config(
    run: str | Path | Mapping[str, Any],
    registry: PluginRegistry | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    processes: int | None = None,
) -> RunConfig:
    """Read and validate a whole run.yaml; raises ConfigError with everything that is wrong, in the order of the file.

    `run` is its path, or what it says as a mapping: messages about that name keys, and no file. Without a `registry` plug-ins are
    what is installed, and what was registered in this process. `options` replace what the file says in `training`. Where it
    leaves num_gpus out, it is `processes`, as many as a launcher has started (`launched_processes`).
    """
    registry = registry or PluginRegistry()
    document = Document("the run", plain(run), {}) if isinstance(run, Mapping) else read_document(run)
    raw = document.data
    allowed = f"a mapping with {', '.join(REQUIRED_SECTIONS)}"
    if not isinstance(raw, dict):
        found = "the file is empty" if raw is None else f"found {show(raw)} at the top"
        raise ConfigError(Problem(found, where=document.where(()), allowed=allowed))
    if is_fastvideo(raw):
        found = "this is a file of FastVideo's trainer (`_target_`, models, nested training)"
        file = "FILE" if isinstance(run, Mapping) else shlex.quote(str(run))
        fix = f"fastvideo-distill convert {file} --out NEW.yaml"
        raise ConfigError(Problem(found, where=document.where(()), allowed=allowed, fix=fix))
    if isinstance(training := raw.get("training"), dict):
        options, launched = options or {}, {} if processes is None else {"num_gpus": processes}
        replaced = {("training", key) for key in options}
        problems = tuple((path, problem) for path, problem in document.problems if path[:2] not in replaced)
        document = replace(document, data={**raw, "training": {**launched, **training, **options}}, problems=problems)
    with foreign_file(document.source, "run configuration", ConfigError, fix=_TELL):
        return _Reader(document, registry).read()


class _Reader:
    """Reads section by section; what fails is noted and the rest is read all the same."""

    def __init__(self, document: Document, registry: PluginRegistry) -> None:
        self.document, self.registry = document, registry
        self.data: dict[Any, Any] = document.data
        self.problems = ProblemCollector()
        self.problems.add_document(document)
        self.pipeline_document: Document | None = None

    def read(self) -> RunConfig:
        self._top_level()
        recipe = self._parse(self.document, ("recipe",), RecipeConfig) if "recipe" in self.data else None
        training = self._parse(self.document, ("training",), TrainingArgs) if "training" in self.data else None
        roles = self._roles()
        _, family_section = self._plugin("models", ("recipe", "family"))
        method, method_section = self._plugin("methods", ("recipe", "method"))
        self._used_family(roles)
        self._required_roles(method)
        pipeline_config = self._pipeline_config(family_section)
        method_config = self._parse(self.document, ("method_config",), method_section)
        callbacks = self._callbacks()
        self._contradictions(roles)
        cfg = None
        if recipe and training and pipeline_config and method_config and not self.problems.touches(("roles",)):
            source = self.document.source
            cfg = RunConfig(recipe, roles, training, pipeline_config, method_config, callbacks, source)
            self._ask_plugins(cfg)
        self.problems.raise_if_any()
        assert cfg is not None, "a section is unread although nothing is wrong with it"
        return cfg

    def _top_level(self) -> None:
        for key in self.data:
            if key not in SECTIONS:
                self._note((key,), unknown_key(key, SECTIONS, "run.yaml", present=self.data))
        for key in REQUIRED_SECTIONS:
            if key not in self.data:
                self._note((key,), Problem("missing", allowed="a mapping", fix=f"add a section `{key}:`"))

    def _parse(self, document: Document, path: KeyPath, model: type[Model] | None, section: str = "") -> Model | None:
        """One section, named `section` where the document does not tell; None where it is wrong, which is noted."""
        if model is None:
            return None
        data = _at(document.data, path)
        try:
            return model.model_validate({} if data is None else data)
        except ValidationError as error:
            for inner, problem in validation_problems(error, model, data, section or dotted(path)):
                self.problems.add(document, (*path, *inner), problem)
            return None

    def _roles(self) -> dict[str, RoleConfig]:
        data = self.data.get("roles")
        if "roles" not in self.data:
            return {}
        if not isinstance(data, dict) or not data:
            allowed = "a mapping of role names to {path: ..., trainable: ...}"
            self._note(("roles",), Problem(f"found {show(data)}", allowed=allowed, fix="name the roles of the method"))
            return {}
        roles: dict[str, RoleConfig] = {}
        for name in data:
            if not isinstance(name, str) or not _ROLE_NAME.fullmatch(name):
                allowed = "a name of letters, digits, _ and -, beginning with a letter"
                self._note(("roles", name), Problem(f"found {show(name)} as a role's name", allowed=allowed))
                continue
            role = self._parse(self.document, ("roles", name), RoleConfig)
            if role is not None:
                roles[name] = role
                self._plugin("models", ("roles", name, "family"))
        return roles

    def _used_family(self, roles: Mapping[str, RoleConfig]) -> None:
        """The recipe's family gives the adapter, so that at least one role must be of it, under the same name."""
        family = _at(self.data, ("recipe", "family"))
        if not isinstance(family, str) or not roles or self.problems.touches(("roles",)):
            return
        for name, role in roles.items():
            if role.family is not None and role.family != family and _short(role.family) == _short(family):
                found = f"found {show(role.family)}, and recipe.family is {show(family)}"
                self._note(("roles", name, "family"), Problem(found, fix="write both alike, or remove this one"))
        if all(role.family is not None and _short(role.family) != _short(family) for role in roles.values()):
            found, fix = f"no role is of the family {show(family)}", "name the family of the roles as recipe.family"
            self._note(("recipe", "family"), Problem(found, fix=fix))

    def _required_roles(self, method: Plugin | None) -> None:
        names = self.data.get("roles")
        if method is None or not isinstance(method.spec, MethodPlugin) or not isinstance(names, dict) or not names:
            return
        needed, listed = method.spec.roles, method.spec.roles_in_words()
        known = (*needed, *method.spec.optional_roles)
        extra = [name for name in names if name not in known]
        for role in needed:
            if role not in names:
                fix = f"rename {guess!r}" if (guess := closest(role, [str(name) for name in extra])) else "add it"
                found = f"missing: the method {method.name!r} needs the role {role!r}"
                self._note(("roles", role), Problem(found, allowed=listed, fix=fix))
        for name in extra:
            fix = did_you_mean(name, [role for role in known if role not in names], otherwise="remove it")
            found = f"the method {method.name!r} has no role {name!r}"
            self._note(("roles", name), Problem(found, allowed=listed, fix=fix))

    def _plugin(
        self, kind: Kind, path: KeyPath, name: str | None = None
    ) -> tuple[Plugin | None, type[PluginConfig] | None]:
        """The plug-in that is named at `path` and the class of its section; None where that is wrong, which is noted."""
        name = _at(self.data, path) if name is None else name
        if isinstance(name, str) and name:  # else the section's own check says so
            try:
                plugin = self.registry.get(kind, name)
                return plugin, self.registry.config_class(plugin)
            except PluginError as error:
                for problem in error.problems:
                    self._note(path, _nested(problem))
        return None, None

    def _pipeline_config(self, model: type[PluginConfig] | None) -> PluginConfig | None:
        key = "pipeline_config_path"
        if key not in self.data:
            return self._parse(self.document, ("pipeline_config",), model)
        if "pipeline_config" in self.data:
            found = "pipeline_config and pipeline_config_path are both there"
            self._note((key,), Problem(found, fix="keep one of the two"))
            return None
        file = self.data[key]
        if not isinstance(file, str) or not file:
            self._note((key,), Problem(f"found {show(file)}", allowed="the path of a YAML or JSON file"))
            return None
        try:
            self.pipeline_document = read_document(path_text(file))
        except ValueError as error:
            self._note((key,), Problem(f"{error} (found {show(file)})"))
        except ConfigError as error:
            for problem in error.problems:
                self._note((key,), _nested(problem))
        else:
            self.problems.add_document(self.pipeline_document)
            return self._parse(self.pipeline_document, (), model, "pipeline_config")
        return None

    def _callbacks(self) -> dict[str, PluginConfig]:
        data = self.data.get("callbacks")
        if data is None:
            return {}
        if not isinstance(data, dict):
            allowed = "a mapping of callback names to their options"
            self._note(("callbacks",), Problem(f"found {show(data)}", allowed=allowed))
            return {}
        parsed: dict[str, PluginConfig] = {}
        for name in data:
            path = ("callbacks", name)
            _, section = self._plugin("callbacks", path, str(name))
            if (config := self._parse(self.document, path, section)) is not None:
                parsed[name] = config
        return parsed

    def _contradictions(self, roles: Mapping[str, RoleConfig]) -> None:
        """Looks at all that could be read: keys that are wrong themselves count as unknown."""
        data = self.data.get("training")
        given = dict(data) if isinstance(data, dict) else {}
        stand_ins = {"output_dir": ".", "max_train_steps": 1}
        bad = {key for key in {*given, *stand_ins} if key not in given or self.problems.touches(("training", key))}
        readable = {key: value for key, value in given.items() if key not in bad}
        training = TrainingArgs.model_validate({**stand_ins, **readable})
        found: list[Contradiction] = list(training_contradictions(training, roles)) if "training" in self.data else []
        for name in roles:
            found += role_contradictions(name, roles, training)
        for item in found:
            if not bad.intersection(item.rests_on):
                self._note(item.path, item.problem)

    def _ask_plugins(self, cfg: RunConfig) -> None:
        for config in (cfg.pipeline_config, cfg.method_config, *cfg.callbacks.values()):
            for key, problem in config.check_run(cfg):
                path = key_path(key)
                if self.pipeline_document is not None and path[:1] == ("pipeline_config",):
                    self.problems.add(self.pipeline_document, path[1:], problem)
                else:
                    self._note(path, problem)

    def _note(self, path: KeyPath, problem: Problem) -> None:
        self.problems.add(self.document, path, problem)


def _at(data: Any, path: KeyPath) -> Any:
    """The value at a path; None where it, or something above it, is not there."""
    for part in path:
        if not isinstance(data, dict):
            return None
        data = data.get(part)
    return data


def _short(family: str) -> str:
    """The name without the distribution of `distribution:name`."""
    return family.rpartition(":")[2]


def _nested(problem: Problem) -> Problem:
    """A problem with a place of its own, told as the cause of one in run.yaml."""
    place = f"\n    in: {problem.where}" if problem.where else ""
    return replace(problem, where="", found=problem.found + place)
