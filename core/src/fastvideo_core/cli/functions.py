"""The commands `train` and `sample` as functions, for notebooks and scripts; errors are raised, with the commands' words."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TextIO

from fastvideo_core.cli import sample as sample_command
from fastvideo_core.cli.sample_videos import sample as sample_as_asked
from fastvideo_core.config.run import RunConfig
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.output_dir import output_problems
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.dispatch.started import join, started, write_records
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch.launcher import launched_processes
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.tracking.display import LoggedStep, LogLines

RunSource = Mapping[str, Any] | str | Path | RunConfig
"""A run: what run.yaml says as a mapping, the path of such a file, or either as `load_run_config` has read it."""


def build_runtime(run: RunSource) -> DistillRuntime:
    """Builds a run, weights too: its `method` holds the roles (`method.bundle`) and the adapter, `dataloader` the data.

    Nothing is written. Plug-ins that were registered in this process are found beside the installed ones. Collective where
    several processes were launched. Raises UserError for whatever does not fit, all at once.
    """
    cfg = _config(run)
    join(cfg)
    return build_runtime_from_config(cfg, PluginRegistry())


def train(run: RunSource | DistillRuntime, *, quiet: bool = False) -> list[dict[str, float]]:
    """Trains as the command does, in this process alone or in each that torchrun, accelerate or srun started.

    Gives the logged steps back: `step`, losses, learning rates, gradient norms, seconds, as in metrics.jsonl; unless `quiet`, a
    line is printed for each. `run` may have been built before (`build_runtime`), to be trained once. Raises UserError for what
    does not fit, before anything is trained; RunStopped where it was interrupted (the step was finished and a checkpoint is
    written); FastVideoError for what else ends runs, such as losses that are not finite.
    """
    cfg = run.cfg if isinstance(run, DistillRuntime) else _config(run)
    join(cfg)  # for good: torch meets no second time
    with started(cfg):
        if isinstance(run, DistillRuntime):
            if problems := output_problems(cfg):  # it was trained since it was built
                raise ConfigError(problems)
            runtime = run
        else:
            runtime = build_runtime_from_config(cfg, PluginRegistry())
        write_records(runtime)
        recorder = _Recorder(sys.stdout if context.is_main_process() and not quiet else StringIO())
        runtime.train(recorder)
    return recorder.steps


def sample(
    model: str | Path, prompt: str | Sequence[str], **options: str | Path | float | Sequence[float]
) -> list[Path]:
    """Makes a video of each prompt, as `fastvideo-distill sample` does; the mp4 files, in the order of the prompts.

    `model` is a checkpoint, a run's folder (its newest checkpoint), a diffusers folder, or a hub id with its `family`. Options
    are those of the command, with `_` for `-`: `out`, `steps`, `guidance_scale`, `timesteps=(1000, 500)`, ... Raises UserError
    where one of them, or what `model` is, does not fit.
    """
    parser = _Parser(allow_abbrev=False)
    sample_command.add_arguments(parser)
    words = [f"--prompt={text}" for text in ([prompt] if isinstance(prompt, str) else prompt)]
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        words.append(f"--{name.replace('_', '-')}={text}")
    return sample_as_asked(parser.parse_args([*words, "--", str(model)]), PluginRegistry())


class _Recorder(LogLines):
    """Keeps the steps that it shows."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.steps: list[dict[str, float]] = []

    def show(self, logged: LoggedStep) -> None:
        self.steps.append({"step": logged.step, **logged.metrics})
        super().show(logged)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(Problem(message, where="sample"))


def _config(run: RunSource) -> RunConfig:
    if isinstance(run, RunConfig):
        return run
    return load_run_config(run, PluginRegistry(), processes=launched_processes())
