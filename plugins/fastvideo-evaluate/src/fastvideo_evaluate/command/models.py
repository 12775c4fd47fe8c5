"""What is compared: the checkpoints of runs, with raw and averaged weights, pipelines' folders, and the teacher."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.weights import describe
from fastvideo_core.config.base import PipelineConfig, is_hub_id
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.dispatch.plugin_checks import method_class
from fastvideo_core.dispatch.role_weights import RoleSource, role_source
from fastvideo_core.dispatch.trained_model import TrainedModel, open_trained_model
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch.stdio import complain
from fastvideo_core.registry.registry import PluginRegistry

TEACHER = "teacher"
_BLOCK, _BLOCKS = 4096, 64
"""Bytes that are read at a time, and how often, of a file that is told from another one."""


@dataclass(frozen=True)
class Candidate:
    """A model that is sampled.

    Args:
        name: in tables and of the folder of its videos.
        model: where its weights are from, and the settings of its run.
        curve: the name of the run, and which weights; a curve connects its checkpoints.
        step: of the training; None where that is not known.
    """

    name: str
    model: TrainedModel
    curve: str = ""
    step: int | None = None


def open_candidates(
    paths: Sequence[str], registry: PluginRegistry, *, family: str | None, role: str | None, weights: str
) -> list[Candidate]:
    """The models at these paths; nothing is loaded.

    Args:
        paths: a run's folder, whose whole checkpoints all count, a checkpoint's, or a diffusers folder.
        weights: of checkpoints: `both` where there are EMA weights, `raw` or `ema`.

    Raises:
        UserError: as `open_trained_model`; a run has no whole checkpoint, or two paths mean the same.
    """
    folders = [folder for path in paths for folder in _checkpoints_of(path)]
    real = [Path(os.path.realpath(folder)) for folder in folders]
    if twice := [folder for number, folder in enumerate(folders) if real[number] in real[:number]]:
        raise ConfigError(Problem("is named twice", twice[0], fix="name every run, checkpoint or folder once"))
    contents = [
        (one / storage.DOCUMENT).read_bytes() if is_checkpoint(one) else bytes(str(one), "utf-8") for one in real
    ]
    again = [number for number, content in enumerate(contents) if content in contents[:number]]
    for number in reversed(again):  # a run's `best` beside that run
        first = folders[contents.index(contents[number])]
        complain(f"note: {folders[number]} is the same checkpoint as {first}, and sampled once")
        del folders[number], real[number]
    found = []
    labels = _labels([one.parent if is_checkpoint(one) else one for one in real])
    for folder, label, place in zip(folders, labels, real, strict=True):
        if not is_checkpoint(place):
            model = open_trained_model(folder, registry, family=family, role=role)
            found.append(Candidate(_file_name(label), model, label))
            continue
        for model in _opened(folder, registry, family, role, weights):
            kind = "EMA" if model.source.ema else "raw"
            step = storage.read_document(place).step
            name = _file_name(f"{label}-{step:06d}-{kind.lower()}")
            found.append(Candidate(name, model, f"{label}, {kind} weights", step))
    if clash := sorted({one.name for one in found if [other.name for other in found].count(one.name) > 1}):
        raise ConfigError(Problem(f"several models would be called {clash[0]}", fix="evaluate them one by one"))
    return found


def _opened(
    folder: str, registry: PluginRegistry, family: str | None, role: str | None, weights: str
) -> list[TrainedModel]:
    """A checkpoint's raw weights, then its averaged ones where `weights` is `both` and there are some; else what it names."""
    kind = "raw" if weights == "both" else weights
    first = open_trained_model(folder, registry, family=family, role=role, weights=kind)
    assert first.source.checkpoint is not None
    if weights != "both" or first.source.checkpoint_role not in describe(first.source.checkpoint).ema_roles:
        return [first]
    return [first, open_trained_model(folder, registry, family=family, role=role, weights="ema")]


def open_teacher(against: str | None, candidates: Sequence[Candidate], registry: PluginRegistry) -> Candidate | None:
    """What `--against` names; else the teacher of the candidates' own runs, which must be one; None where they have none.

    Raises:
        UserError: as `open_trained_model`; runs have different teachers.
    """
    if against is not None:
        model = open_trained_model(against, registry, family=None if is_local(against) else candidates[0].model.family)
        if not model.training:  # a folder says nothing of steps and guidance
            model = replace(model, training=candidates[0].model.training)
        return Candidate(TEACHER, model, TEACHER)
    named: dict[str, Candidate] = {}
    for one in candidates:
        checkpoint = one.model.source.checkpoint
        roles = {} if checkpoint is None else describe(checkpoint).config["roles"]
        if TEACHER in roles:
            opened = _teacher_of_run(one.model, RoleConfig.model_validate(roles[TEACHER]))
            named.setdefault(str(opened.source), Candidate(TEACHER, opened, TEACHER))
    if len(named) > 1:
        found = f"the runs have different teachers: {'; '.join(named)}"
        raise ConfigError(Problem(found, fix="name one of them, or another model, with --against"))
    return next(iter(named.values()), None)


def _teacher_of_run(student: TrainedModel, role: RoleConfig) -> TrainedModel:
    if not Path(role.path).exists() and not is_hub_id(role.path):
        fix = "name where it is now, or another model, with --against"
        raise ConfigError(Problem("the teacher that the run names is gone", where=role.path, fix=fix))
    settings = student.pipeline_config
    if isinstance(settings, PipelineConfig):
        settings = settings.of_role(TEACHER)
    source = role_source(TEACHER, role)
    return TrainedModel(role.family or student.family, source, settings, training=student.training)


def keeps_pairs(model: TrainedModel, registry: PluginRegistry) -> bool:
    """Whether it was trained to make the teacher's video of the same noise; a folder does not say so."""
    if model.source.checkpoint is None:
        return False
    return method_class(describe(model.source.checkpoint).config["recipe"]["method"], registry).keeps_pairs


def is_checkpoint(folder: Path) -> bool:
    """Whether it is one checkpoint's folder."""
    return (folder / storage.DOCUMENT).is_file()


def is_local(path: str) -> bool:
    """Whether it is a path of this machine, and no hub id."""
    return Path(path).exists() or not is_hub_id(path)


def _checkpoints_of(path: str) -> list[str]:
    """The whole checkpoints of a run's folder, the oldest first; the path itself where it is something else."""
    found = storage.checkpoints(Path(path))
    whole = []
    for folder in found:
        if why := storage.flaw(folder):
            complain(f"note: {folder} is passed over: it is not whole ({why})")
        else:
            whole.append(str(folder))
    if found and not whole:
        raise ConfigError(Problem("no checkpoint of the run is whole", path, fix="see `fastvideo-distill report`"))
    return whole or [path]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many before it as tell them from each other."""
    apart = len(set(folders))
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = {folder: "/".join(folder.parts[-parts:]) for folder in folders}
        if len(set(labels.values())) == apart:
            break
    return [labels[folder] for folder in folders]


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in text)


# --- whether it is still the same ---------------------------------------------------------------------------------------


def identity(source: RoleSource) -> str:
    """16 hexadecimal digits that tell these weights from others, without reading all of them.

    A checkpoint lists the sums of its files; of a folder's files the names, the sizes and some blocks of their bytes count.
    """
    parts: list[Any] = [source.checkpoint_role, source.ema, [str(file) for file in source.merged]]
    parts.append(_of_folder(Path(source.base)) if Path(source.base).is_dir() else source.base)
    if source.checkpoint is not None:
        parts.append((source.checkpoint / storage.SUM).read_text(encoding="utf-8"))
    if source.below is not None:
        parts.append(identity(source.below))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _of_folder(folder: Path) -> list[tuple[str, int, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [(str(path.relative_to(folder)), path.stat().st_size, _some_bytes(path)) for path in files]


def _some_bytes(path: Path) -> str:
    size, seen = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(max(0, size - _BLOCK) * number // (_BLOCKS - 1))
            seen.update(file.read(_BLOCK))
    return seen.hexdigest()


def sizes(candidates: Sequence[Candidate]) -> Mapping[str, int]:
    """Height, width and frames of videos, as the first run that names each says it."""
    found: dict[str, int] = {}
    for name, key in {"height": "num_height", "width": "num_width", "num_frames": "num_frames"}.items():
        named = [one.model.training[key] for one in candidates if one.model.training.get(key) is not None]
        if named:
            found[name] = named[0]
    return found
