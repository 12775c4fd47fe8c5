"""A family, a method and a callback that exist only in these tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field, field_validator

from fastvideo_core import IntTuple, PluginConfig, RunConfig
from fastvideo_core.errors import Problem
from fastvideo_core.registry import (
    PluginRegistry,
    register_callback,
    register_method,
    register_model,
)
from fastvideo_testing.isolation import isolated_registrations

RUN_YAML = """\
recipe:
  family: toy
  method: toymethod
roles:
  student: {path: org/student, trainable: true}
  teacher: {path: org/teacher, trainable: false}
training:
  output_dir: out
  max_train_steps: 10
  learning_rate: 2e-6
  lr_scheduler: constant
pipeline_config:
  flow_shift: 3
method_config:
  steps: [999, 500, 0]
callbacks:
  toycallback: {decay: 0.99}
"""


class ToyConfig(PluginConfig):
    flow_shift: float | None = Field(None, gt=0, description="Shift.")
    size: IntTuple = Field((8, 8), description="Size.")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        if cfg.training.train_batch_size > 4:
            return [("pipeline_config.flow_shift", Problem("toy takes at most 4 samples at once"))]
        return []


class ToyMethodConfig(PluginConfig):
    steps: IntTuple = Field(description="Schedule.")
    interval: int = Field(1, ge=1, description="Interval.")
    mode: Literal["simulate", "data"] = Field("simulate", description="Mode.")

    @field_validator("steps")
    @classmethod
    def _falling(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if list(steps) != sorted(steps, reverse=True):
            raise ValueError("the schedule must fall")
        return steps

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        found = []
        if not cfg.roles["student"].trainable:
            problem = Problem("the student of toymethod must be trainable", fix="set it to true")
            found.append(("roles.student.trainable", problem))
        if self.steps[0] == 1000:
            found.append(("method_config.steps[0]", Problem("toy cannot do 1000")))
        return found


class ToyCallbackConfig(PluginConfig):
    decay: float = Field(0.9, ge=0, lt=1, description="Decay.")


@contextmanager
def toy_registry() -> Iterator[PluginRegistry]:
    """A registry in which nothing but the toys exists."""
    with isolated_registrations():

        @register_model("toy", config=ToyConfig)
        def build_toy(cfg: RunConfig) -> None: ...

        @register_method("toymethod", config=ToyMethodConfig, roles=("student", "teacher"))
        class ToyMethod: ...

        @register_callback("toycallback", config=ToyCallbackConfig)
        class ToyCallback: ...

        yield PluginRegistry(installed=())
