"""Weights & Biases."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.tracker import LoggedVideo, Tracker
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.errors.shown import without_secrets


class WandbTracker(Tracker):
    """Logs to one wandb run; a resumed training goes on in the same one, whose id is kept in `output_dir`/wandb.

    Values are plotted over the metric `step`: wandb's own step counter refuses the steps that a resumed run repeats,
    whose values are plotted over the earlier ones. `config` is shown with the run, without secrets. Raises UserError where wandb
    refuses to start (no API key, no network).
    """

    def __init__(self, args: TrainingArgs, config: Mapping[str, Any]) -> None:
        folder, resuming = Path(args.output_dir), args.resume_from_checkpoint is not None
        id_file = folder / "wandb" / "run-id.txt"
        id_file.parent.mkdir(parents=True, exist_ok=True)
        run_id = id_file.read_text().strip() if resuming and id_file.exists() else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=args.tracker_project_name,
                name=args.wandb_run_name,
                id=run_id,
                resume="allow",
                config=without_secrets(config),
                dir=str(folder),
                save_code=False,
            )
        except (wandb.Error, OSError) as error:
            fix = "run `wandb login`, set WANDB_MODE=offline, or remove wandb from training.trackers"
            raise UserError(Problem(f"wandb does not start: {error}", "training.trackers: wandb", fix=fix)) from error
        id_file.write_text(self._run.id + "\n")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    def log_video(self, video: LoggedVideo) -> None:
        caption = video.caption or None
        video_file = wandb.Video(str(video.path), caption=caption, format="mp4")
        media: dict[str, Any] = {"step": video.step, video.name: video_file}
        if video.contact_sheet is not None:
            media[f"{video.name}/frames"] = wandb.Image(str(video.contact_sheet), caption=caption)
        self._run.log(media)

    def finish(self) -> None:
        self._run.finish()
