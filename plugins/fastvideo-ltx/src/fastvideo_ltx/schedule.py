"""The timestep shift: fixed, or following the number of tokens as the pipeline's scheduler says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.folder import LtxFolder

BASE_SCHEDULER = "base_scheduler"
"""Under MARKER: the scheduler configuration that the student's schedule stands in for."""


PUBLISHED_SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "shift_terminal": 0.1,
}
"""The scheduler settings of the published pipelines, which tiny ones have too."""


def own_scheduler(folder: LtxFolder) -> Mapping[str, Any]:
    """The configuration of the pipeline's many-step scheduler; an exported student's schedule is none."""
    scheduler: Mapping[str, Any] = folder.marked.get(BASE_SCHEDULER, folder.scheduler)
    return scheduler


def is_dynamic(folder: LtxFolder) -> bool:
    """Whether the pipeline's scheduler shifts by the number of tokens."""
    return bool(own_scheduler(folder).get("use_dynamic_shifting"))


def shift_exponent(scheduler: Mapping[str, Any], tokens: int) -> float:
    """mu of a dynamic scheduler, linear in the number of video tokens.

    As published: 0.95 at 1024 tokens and 2.05 at 4096.
    """
    low, high = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    at_low, at_high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    return float(at_low + (tokens - low) * (at_high - at_low) / (high - low))


def resolve_flow_shift(folder: LtxFolder, config: LtxConfig, *, tokens: int) -> float:
    """The shift s of s u / (1 + (s - 1) u): pipeline_config's, else that of the pipeline's scheduler.

    A dynamic scheduler moves sigma to e^mu / (e^mu + 1 / sigma - 1), which is the shift s = e^mu; with time_shift_type
    linear it is s = mu.

    Args:
        tokens: number of video tokens at which a dynamic shift is taken where the configuration names none.
    """
    if config.flow_shift is not None:
        return config.flow_shift
    scheduler = own_scheduler(folder)
    if not scheduler.get("use_dynamic_shifting"):
        return float(scheduler.get("shift", 1.0))
    mu = shift_exponent(scheduler, tokens if config.shift_tokens is None else config.shift_tokens)
    return math.exp(mu) if scheduler.get("time_shift_type", "exponential") == "exponential" else mu


def many_step_config(folder: LtxFolder, config: LtxConfig) -> dict[str, Any]:
    """The configuration of the pipeline's own scheduler; with pipeline_config.flow_shift fixed at it.

    Raises:
        ConfigError: it is no flow-matching Euler scheduler.
    """
    scheduler = dict(own_scheduler(folder))
    name = scheduler.get("_class_name")
    if name != FlowMatchEulerDiscreteScheduler.__name__:
        allowed = FlowMatchEulerDiscreteScheduler.__name__
        raise ConfigError(Problem(f"is a {name}", where=f"{folder.path}/scheduler", allowed=allowed))
    if config.flow_shift is not None:
        scheduler |= {"use_dynamic_shifting": False, "shift": config.flow_shift}
    return scheduler


def many_step_scheduler(folder: LtxFolder, config: LtxConfig, *, steps: int) -> FlowMatchEulerDiscreteScheduler:
    """A fresh scheduler of `many_step_config` for so many steps."""
    scheduler = many_step_config(folder, config)
    if steps == 1:  # the only level is 1, and stretching it to the terminal one would divide by zero
        scheduler["shift_terminal"] = None
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler)
