"""The trackers that a run asks for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.tracker import NullTracker, Tracker
from fastvideo_core.distributed.context import is_main_process
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.tracking.jsonl import JsonlTracker
from fastvideo_core.tracking.multi import MultiTracker


def build_tracker(training_args: TrainingArgs, config: Mapping[str, Any]) -> Tracker:
    """metrics.jsonl in `output_dir`, and each of `training_args.trackers`; nothing on processes that do not report.

    Args:
        config: the run's configuration as plain data, for trackers that show it.

    Raises:
        UserError: a tracker's package is not installed, or the tracker does not start.
    """
    if not is_main_process():
        return NullTracker()
    folder = Path(training_args.output_dir)
    for name in training_args.trackers:
        _require_package(name)
    trackers: dict[str, Tracker] = {"jsonl": JsonlTracker(folder / "metrics.jsonl")}
    if "tensorboard" in training_args.trackers:
        from fastvideo_core.tracking.tensorboard import TensorboardTracker

        trackers["tensorboard"] = TensorboardTracker(folder / "tensorboard")
    if "wandb" in training_args.trackers:
        from fastvideo_core.tracking.wandb import WandbTracker

        project, run_name = training_args.tracker_project_name, training_args.wandb_run_name
        resuming = training_args.resume_from_checkpoint is not None
        trackers["wandb"] = WandbTracker(project, run_name, config, folder, resuming=resuming)
    return MultiTracker(trackers)


def _require_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise UserError(
            Problem(
                found=f"the package '{name}' is not installed",
                where="training.trackers",
                fix=f"pip install 'fastvideo-core[{name}]', or remove {name} from training.trackers",
            )
        )
