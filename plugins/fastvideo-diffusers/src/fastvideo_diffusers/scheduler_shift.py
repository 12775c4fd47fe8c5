"""The timestep shift that a pipeline's scheduler states, and that scheduler with the run's."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers

from fastvideo_core.config.base import PipelineConfig
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.folder import PipelineFolder

SHIFT_KEYS = ("flow_shift", "shift")


def pipeline_shift(folder: PipelineFolder, config: PipelineConfig, *, usual: str = "") -> float:
    """The one flow shift of a run: pipeline_config's, else that of the pipeline's scheduler.

    Args:
        usual: a word on the model's own, for who must set one, as "Wan 2.1: 5.0".

    Raises:
        ConfigError: neither states one.
    """
    if config.flow_shift is not None:
        return config.flow_shift
    for source in (folder.marked, folder.scheduler):
        for key in SHIFT_KEYS:
            if source.get(key) is not None and not folder.scheduler.get("use_dynamic_shifting"):
                return float(source[key])
    raise ConfigError(
        Problem(
            f"{folder.scheduler.get('_class_name', 'the scheduler')} states no fixed shift",
            where=f"{folder.path}/scheduler/scheduler_config.json",
            fix=f"set pipeline_config.flow_shift{f' ({usual})' if usual else ''}",
        )
    )


def shifted_scheduler(folder: PipelineFolder, flow_shift: float) -> Any:
    """A fresh scheduler of the pipeline's own class, with `flow_shift`: what many steps are sampled with.

    Raises:
        ConfigError: diffusers has no such scheduler, or it takes no shift.
    """
    config = dict(folder.scheduler)
    if "sampling_timesteps" in folder.marked:  # an exported student's schedule is no many-step schedule
        config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": folder.num_train_timesteps}
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None)
    parameters = inspect.signature(kind).parameters if isinstance(kind, type) else {}
    key = next((key for key in SHIFT_KEYS if key in parameters), None)
    if kind is None or key is None:
        raise ConfigError(
            Problem(
                f"is a {name}",
                where=f"{folder.path}/scheduler",
                allowed="a flow-matching scheduler of diffusers, as FlowMatchEulerDiscreteScheduler or "
                "UniPCMultistepScheduler",
            )
        )
    return kind.from_config(config, **{key: flow_shift})
