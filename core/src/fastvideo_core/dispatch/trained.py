"""A trained model on disk, as `sample` and `export` see it: one of our checkpoints, or a diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.config.base import PluginConfig
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.config.sections import MethodConfig
from fastvideo_core.dispatch.sources import RoleSource, find_checkpoint, role_source
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.registry.registry import PluginRegistry


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
        """The checkpoint's weights by module and name; empty for a plain folder."""
        if self.source.checkpoint is None:
            return {}
        return read_role_weights(self.source.checkpoint, self.source.checkpoint_role, ema=self.source.ema)


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
        ConfigError: no family for a plain folder, or another one than the checkpoint's.
        CheckpointError: the checkpoint lacks the role or its EMA weights.
    """
    checkpoint = find_checkpoint(path)
    options: dict[str, Any] = {"checkpoint_role": role, "weights": weights}
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
