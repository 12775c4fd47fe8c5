"""A trained model on disk, as `sample` and `export` see it: one of our checkpoints, or a diffusers folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.checkpoint.weights import CheckpointInfo, describe, read_role_weights
from fastvideo_core.config.base import PluginConfig
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.config.sections import MethodConfig
from fastvideo_core.dispatch.sources import RoleSource, find_checkpoint, load_role, role_source
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_core.registry.registry import PluginRegistry
from fastvideo_core.roles import RoleHandle

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class TrainedModel:
    """One role's weights and how they are meant to be sampled.

    Args:
        family: the family that reads `source.base`.
        source: where the weights are.
        pipeline_config: the family's settings of the run, or its defaults for a plain folder.
        method_config: the method's settings of the run; None for a plain folder.
        training: the run's `training` section; empty for a plain folder.
    """

    family: str
    source: RoleSource
    pipeline_config: PluginConfig
    method_config: MethodConfig | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What the checkpoint holds by module and name: weights, or adapters alone; empty for a plain folder."""
        if self.source.checkpoint is None:
            return {}
        return read_role_weights(self.source.checkpoint, self.source.checkpoint_role, ema=self.source.ema)

    def whole_weights(self, registry: PluginRegistry) -> dict[str, dict[str, Tensor]]:
        """As `weights`, with adapters merged into what they were trained on."""
        if self.source.lora is None:
            return self.weights()
        build: Any = registry.resolve(registry.get("models", self.family), "sample")
        handle: RoleHandle = build(self.source.base, self.pipeline_config, device=torch.device("cpu")).handle
        load_role(handle, self.source)
        return {name: module.state_dict() for name, module in handle.modules.items()}


def open_trained_model(
    path: str,
    registry: PluginRegistry,
    *,
    family: str | None = None,
    role: str | None = None,
    weights: str = "auto",
) -> TrainedModel:
    """Looks at what `path` is; reads no weights.

    Args:
        family: needed for a diffusers folder; a checkpoint knows its own.
        role: which role of a checkpoint; None is its student, or its only role.
        weights: `auto` (EMA where there is one), `raw` or `ema`.

    Raises:
        ConfigError: nothing there, role or weights of a plain folder, no family for it, or another one than the
            checkpoint's.
        CheckpointError: the checkpoint is damaged, or lacks the role or its EMA weights.
    """
    if not Path(path).exists() and not _HUB_ID.fullmatch(path):
        allowed = "a checkpoint folder, a run's folder, a diffusers folder, or a hub id (org/name)"
        fix = f"check the path; relative ones count from {Path.cwd()}"
        raise ConfigError(Problem("there is no such path", where=path, allowed=allowed, fix=fix))
    checkpoint = find_checkpoint(path)
    options: dict[str, Any] = {"checkpoint_role": role, "weights": weights}
    if checkpoint is None:
        _check_plain_options(path, role, weights)
    else:
        options["checkpoint_role"] = _checked_role(describe(checkpoint), role, weights)
    source = role_source("student", RoleConfig(path=path, trainable=False, **options))
    if checkpoint is None:
        if family is None:
            found = f"{path} is no checkpoint of ours, so its family is not known"
            fix = "add --family, one of: " + (", ".join(registry.names("models")) or "(none installed)")
            raise ConfigError(Problem(found, fix=fix))
        section = registry.config_class(registry.get("models", family))
        return TrainedModel(family, source, section())
    config = describe(checkpoint).config
    recipe = config["recipe"]
    own_family = config["roles"][source.checkpoint_role].get("family") or recipe["family"]
    if family is not None and family != own_family:
        raise ConfigError(Problem(f"{path} is of family '{own_family}', not '{family}'", fix="leave --family out"))
    model_section = registry.config_class(registry.get("models", own_family))
    method_section = registry.config_class(registry.get("methods", recipe["method"]))
    method_config = method_section.model_validate(config["method_config"])
    return TrainedModel(
        own_family,
        source,
        model_section.model_validate(config["pipeline_config"]),
        method_config if isinstance(method_config, MethodConfig) else None,
        config["training"],
    )


def _check_plain_options(path: str, role: str | None, weights: str) -> None:
    given = (("--role", role, None), ("--weights", weights, "auto"))
    problems = [
        Problem(f"is for checkpoints, and {path} is none", f"{option} {value}", fix=f"leave {option} out")
        for option, value, absent in given
        if value != absent
    ]
    if problems:
        raise ConfigError(problems)


def _checked_role(contents: CheckpointInfo, wanted: str | None, weights: str) -> str:
    """The role that is meant, which has the weights that are asked for."""
    roles = tuple(contents.roles)
    role = wanted or ("student" if "student" in roles or len(roles) > 1 else roles[0])
    if role not in roles:
        found = f"{contents.path} holds no role '{role}'"
        where = f"--role {wanted}" if wanted else ""
        raise CheckpointError(Problem(found, where, allowed=", ".join(roles), fix="name one of them with --role"))
    if weights == "ema" and role not in contents.ema_roles:
        found = f"{contents.path} has no EMA weights of role '{role}'"
        allowed = f"roles with EMA weights: {', '.join(contents.ema_roles) or 'none'}"
        raise CheckpointError(
            Problem(found, "--weights ema", allowed=allowed, fix="use --weights raw, or leave it out")
        )
    return role
