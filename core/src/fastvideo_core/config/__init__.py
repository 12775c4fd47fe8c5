"""run.yaml as typed, immutable data."""

from __future__ import annotations

from fastvideo_core.config.base import FloatPair, FloatTuple, IntTuple, PathText, PluginConfig, StrictModel, StrTuple
from fastvideo_core.config.run import OPTIMIZER_OVERRIDES, RecipeConfig, RoleConfig, RunConfig
from fastvideo_core.config.training import LRSchedulerName, TrainingArgs

__all__ = [
    "OPTIMIZER_OVERRIDES",
    "FloatPair",
    "FloatTuple",
    "IntTuple",
    "LRSchedulerName",
    "PathText",
    "PluginConfig",
    "RecipeConfig",
    "RoleConfig",
    "RunConfig",
    "StrTuple",
    "StrictModel",
    "TrainingArgs",
]
