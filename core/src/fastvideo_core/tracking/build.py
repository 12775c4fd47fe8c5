"""The trackers of a run: metrics.jsonl, and those that it asks for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.tracker import LoggedVideo, Tracker
from fastvideo_core.distributed.context import is_main_process
from fastvideo_core.launch.stdio import Attempts
from fastvideo_core.tracking.jsonl import JsonlTracker


def build_tracker(training_args: TrainingArgs, config: Mapping[str, Any]) -> Tracker:
    """metrics.jsonl, and each of the trackers, which show `config`, on the main process; UserError where one does not start."""
    if not is_main_process():
        return Tracker()
    folder = Path(training_args.output_dir)
    trackers: dict[str, Tracker] = {"jsonl": JsonlTracker(folder / "metrics.jsonl")}
    if "tensorboard" in training_args.trackers:
        from fastvideo_core.tracking.tensorboard import TensorboardTracker

        trackers["tensorboard"] = TensorboardTracker(folder / "tensorboard")
    if "wandb" in training_args.trackers:
        from fastvideo_core.tracking.wandb import WandbTracker

        trackers["wandb"] = WandbTracker(training_args, config)
    return MultiTracker(trackers)


class MultiTracker(Tracker):
    """Passes everything on to each of its trackers, which have names for reports; one that fails does not end the run."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)
        self.attempts = Attempts()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(metrics, step))

    def log_video(self, video: LoggedVideo) -> None:
        self._each(lambda tracker: tracker.log_video(video))

    def resume_after(self, step: int) -> None:
        self._each(lambda tracker: tracker.resume_after(step))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in self.trackers.items():
            self.attempts(f"tracker '{name}' failed", act, tracker)
