"""A run of FastVideo's trainer as a run.yaml: models and a method by `_target_`, nested training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastvideo_core.config.document import Document, KeyPath, dotted
from fastvideo_core.config.foreign_names import is_fastvideo
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_tools.convert.rules import CALLBACKS, FAMILIES, METHODS, RULES, Outcome, Same, Source, Taken

_WHOLE = ("training.data.data_path",)
"""Keys whose value may be a mapping of the user's own names."""


@dataclass(frozen=True)
class Row:
    """What became of one key.

    Attributes:
        key: FastVideo's; empty for what is written because FastVideo does so unasked.
        target: ours; empty where the key is dropped.
        value: as it is written.
        note: why it is dropped or added, or what is different.
        same: a dropped key that makes no difference.
    """

    key: str
    target: str = ""
    value: Any = None
    note: str = ""
    same: bool = False

    @property
    def kind(self) -> str:
        """taken, renamed, added, same or dropped."""
        if not self.key:
            return "added"
        if not self.target:
            return "same" if self.same else "dropped"
        return "taken" if self.key.rpartition(".")[2] == self.target.rpartition(".")[2] else "renamed"


@dataclass(frozen=True)
class Conversion:
    """The run as plain data, and a row for every key of the file."""

    run: Mapping[str, Any]
    rows: tuple[Row, ...]


def convert(document: Document) -> Conversion:
    """The run that a file of FastVideo's trainer describes.

    Raises:
        ConfigError: it is another file, damaged, or of a model or method that is not offered here.
    """
    source = _open(document)
    rows = [*_of_roles(source)]
    for path, value in _leaves(document.data, ()):
        outcome = _outcome(path, value, source)
        if isinstance(outcome, Taken):
            earlier = next((row for row in rows if row.target == outcome.target), None)
            if earlier is not None:
                outcome = Same(f"as {earlier.key}") if earlier.value == outcome.value else f"{earlier.key} counts"
        rows.append(_row(dotted(path), outcome))
    written = {row.target for row in rows}
    rows += [row for row in _unasked(source, written) if row.target not in written]
    run: dict[str, Any] = {name: {} for name in _SECTIONS}
    for row in rows:
        if row.target:
            _put(run, row.target.split("."), row.value)
    return Conversion({name: section for name, section in run.items() if section}, tuple(rows))


def _row(key: str, outcome: Outcome) -> Row:
    if isinstance(outcome, Taken):
        return Row(key, outcome.target, outcome.value, outcome.note)
    return Row(key, note=outcome.why, same=True) if isinstance(outcome, Same) else Row(key, note=outcome)


_SECTIONS = ("recipe", "roles", "training", "pipeline_config", "method_config", "callbacks")


def _put(run: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        run = run.setdefault(part, {})
    run[path[-1]] = value


def _open(document: Document) -> Source:
    if document.problems:
        raise ConfigError(problem for _, problem in document.problems)
    data = document.data
    if not is_fastvideo(data):
        is_ours = isinstance(data, Mapping) and "recipe" in data
        found = "this is a run.yaml already" if is_ours else "this is no file of FastVideo's trainer"
        allowed = "a YAML file with models and a method that name a `_target_`, and training"
        raise ConfigError(Problem(found, where=document.where(()), allowed=allowed))
    models = data.get("models")
    roles = models if isinstance(models, Mapping) else {}
    problems = [_unknown(document, ("method",), METHODS, "method")] if _class(data.get("method")) not in METHODS else []
    problems += [
        _unknown(document, ("models", role), FAMILIES, "model family")
        for role, model in roles.items()
        if _class(model) not in FAMILIES
    ]
    if "student" not in roles and not problems:
        problems.append(Problem("there is no student", where=document.where(("models",))))
    if problems:
        raise ConfigError(problems)
    return Source(data, FAMILIES[_class(roles["student"])], METHODS[_class(data["method"])])


def _class(section: Any) -> str:
    target = section.get("_target_") if isinstance(section, Mapping) else None
    return str(target).strip().rpartition(".")[2]


def _unknown(document: Document, path: KeyPath, known: Mapping[str, str], what: str) -> Problem:
    section: Any = document.data
    for part in path:
        section = section.get(part) if isinstance(section, Mapping) else None
    name = _class(section)
    found = f"there is no {what} here for FastVideo's {name}" if isinstance(section, Mapping) else "missing"
    allowed = ", ".join(f"{theirs} ({ours})" for theirs, ours in known.items())
    return Problem(found, where=document.where((*path, "_target_")), allowed=allowed)


def _of_roles(source: Source) -> Iterator[Row]:
    """What roles are where they say nothing, and those of another family."""
    for role, model in source.data["models"].items():
        if FAMILIES[_class(model)] != source.family:
            yield Row("", f"roles.{role}.family", FAMILIES[_class(model)], "the role's model")
        if "trainable" not in model:
            yield Row("", f"roles.{role}.trainable", True, "FastVideo's default")


def _leaves(data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(data, Mapping) and data and ".".join(map(str, path)) not in _WHOLE:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, data


def _outcome(path: KeyPath, value: Any, source: Source) -> Outcome:
    if value is None or value == {}:
        return Same("not set")
    names = [str(part) for part in path]
    if names[0] == "callbacks" and len(path) > 1:
        kinds = _callback_kinds(source)
        names[1] = kind = kinds[path[1]]
        first = next(name for name, other in kinds.items() if other == kind)
        if path[1] != first:
            return f"there is one {kind}, and callbacks.{first} is it"
    key = ".".join(names)
    for pattern, rule in RULES.items():
        if fnmatchcase(key, pattern):
            outcome = rule(value, source)
            if isinstance(outcome, Taken) and "*" in outcome.target:
                return Taken(outcome.target.replace("*", names[1]), outcome.value, outcome.note)
            return outcome
    return "there is no such option here"


def _callback_kinds(source: Source) -> dict[Any, str]:
    """Every callback of the file -> the name under which rules know its class."""
    callbacks = source.get("callbacks")
    found = callbacks.items() if isinstance(callbacks, Mapping) else ()
    return {name: CALLBACKS.get(_class(section), str(name)) for name, section in found}


def _unasked(source: Source, written: set[str]) -> Iterator[Row]:
    """What FastVideo does where the file says nothing, and this project would do otherwise."""
    yield Row("", "training.mixed_precision", "bf16", "FastVideo computes in bfloat16")
    if source.number("training", "vsa", "sparsity") > 0:
        yield Row("", "method_config.attn_kind", "vsa", "FastVideo attends sparsely where a sparsity is set")
    schedules = source.get("training", "optimizer", "lr_scheduler"), source.get("method", "fake_score_lr_scheduler")
    if "cosine_with_min_lr" in schedules:
        yield Row("", "training.min_lr_ratio", 0.5, "FastVideo's default")
    callbacks = set(_callback_kinds(source).values())
    if "grad_clip" in callbacks:
        yield Row("", "training.max_grad_norm", 1.0, "FastVideo's default")
    else:
        yield Row("", "training.max_grad_norm", 0, "FastVideo clips only with the callback grad_clip")
    if "ema" in callbacks:
        yield Row("", "callbacks.ema.decay", 0.9999, "FastVideo's default")
    validates = "training.validation_dataset_file" in written
    if validates and "training.log_validation" not in written:
        yield Row("", "training.log_validation", True, "the callback validation turns it on")
        yield Row("", "training.validation_steps", 100, "FastVideo's default")
    if source.method == "dmd2":
        yield Row("", "pipeline_config.sampler_kind", "sde", "FastVideo's student draws new noise between its steps")
        yield Row("", "method_config.generator_update_interval", 1, "FastVideo's default")
        yield Row("", "method_config.real_score_guidance_scale", 1.0, "FastVideo's default")
        yield Row("", "method_config.min_timestep_ratio", 0.0, "FastVideo's default")
        yield Row("", "method_config.max_timestep_ratio", 1.0, "FastVideo's default")
        if validates:
            yield Row("", "method_config.validate_teacher", False, "FastVideo validates the student alone")
    elif validates:
        yield Row("", "training.validation_sampling_steps", [40], "FastVideo's default")
    if source.get("models", "student", "lora", "enable"):
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        yield Row("", "roles.student.lora.targets", targets, "FastVideo adapts attention alone")
    if source.family == "ltx":
        yield Row("", "pipeline_config.streams", ["video"], "FastVideo trains LTX on video alone")
        if source.method == "finetune":
            note = "how FastVideo draws LTX's noise levels"
            yield Row("", "method_config.timestep_sampling", "shifted_logit_normal", note)
