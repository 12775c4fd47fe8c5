"""A trained model on disk, as `sample` and `export` see it: one of our checkpoints, or a diffusers folder."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.config.base import PipelineConfig, PluginConfig, is_hub_id
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.contracts.family import WarpedSchedule, open_family
from fastvideo_core.contracts.validator import ModelSampler, StudentSchedule
from fastvideo_core.dispatch.plugin_checks import method_class
from fastvideo_core.dispatch.role_weights import RoleSource, configured_role, load_role, role_source
from fastvideo_core.errors import ConfigError, PluginError, Problem, foreign_file
from fastvideo_core.registry import PluginRegistry

INDEX = "model_index.json"


@dataclass(frozen=True)
class TrainedModel:
    """One role's weights and how they are meant to be sampled.

    The settings are the run's: `pipeline_config`, its `training` section, and the schedule of the method's few-step student. For
    a plain folder they are the family's defaults, empty and None.
    """

    family: str
    source: RoleSource
    pipeline_config: PluginConfig
    student_schedule: WarpedSchedule | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def student(self, sampler: ModelSampler) -> StudentSchedule | None:
        """What the network was distilled for, as the run of its checkpoint or its exported folder says; None for many steps."""
        if self.student_schedule is None:
            return sampler.student
        schedule = self.student_schedule(sampler.shift_and_clamp_timestep)
        if schedule is None or self.source.checkpoint_role != "student":
            return None
        return StudentSchedule(schedule.timesteps, getattr(self.pipeline_config, "sampler_kind", "ode"))

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What the checkpoint holds by module and name: weights, or adapters alone."""
        assert self.source.checkpoint is not None
        return read_role_weights(self.source.checkpoint, self.source.checkpoint_role, ema=self.source.ema)

    def whole_weights(self, registry: PluginRegistry) -> dict[str, dict[str, Tensor]]:
        """As `weights`, with adapters merged into what they were trained on."""
        if self.source.lora is None:
            return self.weights()
        family = open_family(self.family, registry, "sampler")
        handle = family.sampler(self.source.base, self.pipeline_config, device=torch.device("cpu")).handle
        load_role(handle, self.source, family)
        return {name: module.state_dict() for name, module in handle.modules.items()}


def open_trained_model(
    path: str, registry: PluginRegistry, *, family: str | None = None, role: str | None = None, weights: str = "auto"
) -> TrainedModel:
    """Looks at what `path` is; reads no weights.

    `family` is by default that of the checkpoint, or the one that reads the folder; a hub id needs it. `role` is by default the
    checkpoint's student, or its only one; `weights` are `auto` (EMA where there are some), `raw` or `ema`. Raises ConfigError
    where nothing is there or one of them does not fit it, CheckpointError where the checkpoint is damaged or lacks these weights.
    """
    if not Path(path).exists() and not is_hub_id(path):
        allowed = "a checkpoint folder, a run's folder, a diffusers folder, or a hub id (org/name)"
        fix = f"check the path; relative ones count from {Path.cwd()}"
        raise ConfigError(Problem("there is no such path", where=path, allowed=allowed, fix=fix))
    places = {"checkpoint_role": f"--role {role or ''}".strip(), "weights": f"--weights {weights}"}
    chosen: Any = {"checkpoint_role": role or None, "weights": weights}
    source = role_source("student", RoleConfig(path=path, trainable=False, **chosen), places)
    if source.checkpoint is None:
        family = family or family_of_pipeline(path, registry)
        return TrainedModel(family, source, registry.config_class(registry.get("models", family))())
    contents = describe(source.checkpoint)
    recipe, roles = contents.config["recipe"], contents.config["roles"]
    own_family = roles[configured_role(source.checkpoint_role, contents)].get("family") or recipe["family"]
    if family is not None and family != own_family:
        raise ConfigError(Problem(f"{path} is of family '{own_family}', not '{family}'", fix="leave --family out"))
    model_section = registry.config_class(registry.get("models", own_family))
    method_section = registry.config_class(registry.get("methods", recipe["method"]))
    pipeline_config = model_section.model_validate(contents.config["pipeline_config"])
    method_config = method_section.model_validate(contents.config["method_config"])
    schedule = partial(method_class(recipe["method"], registry).student_schedule, method_config)
    if isinstance(pipeline_config, PipelineConfig):
        pipeline_config = pipeline_config.of_role(source.checkpoint_role)
    return TrainedModel(own_family, source, pipeline_config, schedule, contents.config["training"])


def family_of_pipeline(path: str, registry: PluginRegistry) -> str:
    """The installed family that reads a pipeline's folder, by the class that its model_index.json names.

    Raises ConfigError for a hub id or a folder without that file, and for a class that no installed family reads, or several.
    """
    index, names = Path(path) / INDEX, registry.names("models")
    one_of = f"add --family, one of: {', '.join(names) or '(none installed)'}"
    if not Path(path).exists():
        found, fix = "is no path here, and a hub id (org/name) does not say its family", f"check the path, or {one_of}"
        raise ConfigError(Problem(found, where=path, fix=fix))
    if not index.is_file():
        raise ConfigError(Problem(f"holds neither a checkpoint of ours nor {INDEX}", where=path, fix="check the path"))
    with foreign_file(index, "pipeline index", ConfigError):
        kind = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    read: dict[str, tuple[str, ...]] = {}
    for name in names:
        with suppress(PluginError):  # broken: nothing is known of it
            read[name] = registry.get("models", name).spec.pipelines
    families = [name for name, pipelines in read.items() if kind in pipelines]
    if len(families) == 1:
        return families[0]
    if families:
        raise ConfigError(Problem(f"is a {kind}, which {' and '.join(families)} read", where=path, fix="name --family"))
    known = "; ".join(f"{name}: {', '.join(pipelines)}" for name, pipelines in read.items() if pipelines)
    fix = f"install the plug-in that reads it, or {one_of}"
    raise ConfigError(Problem(f"is a {kind}, which no installed family names", where=path, allowed=known, fix=fix))
