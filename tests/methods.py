"""What a short run of each method needs beside its family: for tests that hold of every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """Sections of run.yaml.

    Args:
        roles: whether each is trained.
        method_config, pipeline_config: whatever is not the default.
    """

    roles: Mapping[str, bool]
    method_config: Mapping[str, Any] = field(default_factory=dict)
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)


ON_CLIPS: Mapping[str, Method] = {
    "finetune": Method({"student": True}),
    "dmd2": Method({"student": True, "teacher": False, "critic": True}, {"generator_update_interval": 2}),
    "consistency": Method(
        {"student": True, "teacher": False},
        {"solver": "heun", "solver_steps": 12, "target": "average", "target_decay": 0.9},
        {"sampler_kind": "sde"},
    ),
    "rcm": Method(
        {"student": True, "teacher": False, "critic": True},
        {"tangent_warmup_steps": 2, "generator_update_interval": 2},
        {"sampler_kind": "sde"},
    ),
}
"""Methods that train on a data set of clips, by name."""

ON_TRAJECTORIES: Mapping[str, Method] = {"kd": Method({"student": True}, {"denoising_steps": [1000, 500]})}
"""Methods that train on a teacher's trajectories."""

ALL: Mapping[str, Method] = {**ON_CLIPS, **ON_TRAJECTORIES}


def sections(method: str, path: Callable[[str], str], **options: Any) -> dict[str, Any]:
    """`roles`, `method_config` and `pipeline_config` of a run; `path` says where a role starts from."""
    needed = ALL[method]
    return {
        "roles": {role: {"path": path(role), "trainable": trained} for role, trained in needed.roles.items()},
        "method_config": {**needed.method_config, **options},
        "pipeline_config": dict(needed.pipeline_config),
    }
