"""Configuration of the package's callbacks; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fastvideo_core.config import limits
from fastvideo_core.config.base import IntTuple, PluginConfig
from fastvideo_core.errors import Problem

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig


class GradNormConfig(PluginConfig):
    """Logs the norm of every due role's gradients, before clipping, as grad_norm/<role>."""

    every: int = Field(1, ge=1, le=limits.STEPS, description="Compute it every so many steps.")


class ThroughputConfig(PluginConfig):
    """Logs the speed of steps (median, without validation) as throughput/*, and GPU memory as memory/*."""

    every: int = Field(1, ge=1, le=limits.STEPS, description="Log it every so many steps.")
    window: int = Field(20, ge=1, le=10**6, description="Steps whose median is logged.")


class ProfilerConfig(PluginConfig):
    """Writes a trace of a few steps into output_dir/profile, for chrome://tracing or Perfetto."""

    skip: int = Field(
        5, ge=0, le=limits.STEPS, description="Steps of each start of the run that are not recorded: they warm up."
    )
    steps: int = Field(3, ge=1, le=10**6, description="Steps that are recorded.")
    ranks: IntTuple = Field((0,), min_length=1, description="Processes that record.")
    record_shapes: bool = Field(False, description="Record the shapes of operators' inputs.")
    memory: bool = Field(False, description="Record allocations.")
    stacks: bool = Field(False, description="Record where in the code operators were called; slow.")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """The ranks must exist, and the steps come before the run's end."""
        problems = []
        ranks = cfg.training.num_gpus
        for index, rank in enumerate(self.ranks):
            if not 0 <= rank < ranks:
                problem = Problem(f"this run has no process {rank}", allowed=f"0 to {ranks - 1} (training.num_gpus)")
                problems.append((f"callbacks.profiler.ranks[{index}]", problem))
        if self.skip >= cfg.training.max_train_steps:
            found = f"nothing would be recorded: the run has {cfg.training.max_train_steps} steps, and {self.skip} are skipped"
            problems.append(("callbacks.profiler.skip", Problem(found, fix="skip fewer steps")))
        return problems


class EarlyStopConfig(PluginConfig):
    """Ends the run, with a checkpoint, when a metric has stopped getting better."""

    metric: str = Field("total_loss", min_length=1, description="The metric, as metrics.jsonl has it.")
    mode: Literal["min", "max"] = Field("min", description="Whether less (min) or more (max) is better.")
    every: int = Field(100, ge=1, le=limits.STEPS, description="Look at the mean over so many steps.")
    patience: int = Field(
        10, ge=1, le=limits.STEPS, description="Looks without an improvement after which the run ends."
    )
    min_delta: float = Field(0.0, ge=0, le=limits.FACTOR, description="How much better counts as an improvement.")
    start_step: int = Field(0, ge=0, le=limits.STEPS, description="Step up to which it does not look.")
