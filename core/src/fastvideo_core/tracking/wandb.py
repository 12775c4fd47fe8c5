"""Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wandb

from fastvideo_core.errors import Problem, UserError
from fastvideo_core.errors.shown import without_secrets

_ID_FILE = "run-id.txt"


class WandbTracker:
    """Logs to one wandb run; a resumed training goes on in the same one, whose id is kept in `output_dir`/wandb.

    Works without a network with WANDB_MODE=offline. Videos are given as finished files, so nothing else is needed.
    Values are plotted over the metric `step`: wandb's own step counter refuses the steps that a resumed run repeats.

    Args:
        project: wandb project.
        run_name: None lets wandb choose.
        config: shown with the run; values of keys such as `token` or `password`, and credentials in URLs, are masked.
        output_dir: the run's folder.
        resuming: whether this process goes on with an earlier training; a new one is a new wandb run.

    Raises:
        UserError: wandb refuses to start (no API key, no network).
    """

    def __init__(
        self,
        project: str,
        run_name: str | None,
        config: Mapping[str, Any],
        output_dir: str | Path,
        *,
        resuming: bool = False,
    ) -> None:
        folder = Path(output_dir)
        id_file = folder / "wandb" / _ID_FILE
        id_file.parent.mkdir(parents=True, exist_ok=True)
        run_id = id_file.read_text().strip() if resuming and id_file.exists() else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=project,
                name=run_name,
                config=without_secrets(config),
                dir=str(folder),
                id=run_id,
                resume="allow",
                save_code=False,
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                Problem(
                    found=f"wandb does not start: {error}",
                    where="training.trackers: wandb",
                    fix="run `wandb login`, set WANDB_MODE=offline, or remove wandb from training.trackers",
                )
            ) from error
        id_file.write_text(self._run.id + "\n")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    def log_video(
        self,
        name: str,
        path: Path,
        step: int,
        *,
        caption: str = "",
        contact_sheet: Path | None = None,
        gif: Callable[[], bytes] | None = None,
    ) -> None:
        media: dict[str, Any] = {name: wandb.Video(str(path), caption=caption or None, format="mp4"), "step": step}
        if contact_sheet is not None:
            media[f"{name}/frames"] = wandb.Image(str(contact_sheet), caption=caption or None)
        self._run.log(media)

    def resume_after(self, step: int) -> None:
        return  # repeated steps are plotted over the earlier ones

    def finish(self) -> None:
        self._run.finish()
