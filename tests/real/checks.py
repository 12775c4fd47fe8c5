"""What must be true of the files that a run leaves behind; every check says what it found, or raises."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from steps import StepFailedError

from fastvideo_data.preprocessing.audio import SoundTrack
from fastvideo_data.video_files import Frames, probe, read_frames

SMOOTHED_OVER = 10
SOUND_RATE = 24000
LEAST_CONTRAST = 2.0
"""Standard deviation inside a frame, in levels of 255, below which a picture counts as one solid colour."""


@dataclass(frozen=True)
class Size:
    """A video's height and width in pixels, and its frames."""

    height: int
    width: int
    num_frames: int


def require(holds: bool, message: str) -> None:
    """Raises StepFailedError with the message when something does not hold."""
    if not holds:
        raise StepFailedError(message)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def loss_fell(run: Path, *, steps: int, at_least: float) -> str:
    """total_loss, averaged over the last 10 steps, is lower than over the first 10 by the fraction `at_least`."""
    losses = [float(line["total_loss"]) for line in metrics(run)]
    require(len(losses) == steps, f"{run} logged {len(losses)} losses, not {steps}")
    require(all(map(math.isfinite, losses)), f"{run} has a loss that is not finite: {losses}")
    first, last = np.mean(losses[:SMOOTHED_OVER]), np.mean(losses[-SMOOTHED_OVER:])
    fall = 1 - last / first
    found = (
        f"loss {first:.3f} -> {last:.3f} (means of {SMOOTHED_OVER} steps): {fall:.0%} lower, at least {at_least:.0%}"
    )
    require(fall >= at_least, f"{run}: {found} was wanted")
    return found


def total_losses_are_finite(run: Path, *, steps: int) -> str:
    """total_loss at every step, all finite: of methods whose loss tells no progress."""
    losses = [float(line["total_loss"]) for line in metrics(run)]
    require(len(losses) == steps, f"{run} logged {len(losses)} losses, not {steps}")
    require(all(map(math.isfinite, losses)), f"{run} has a loss that is not finite: {losses}")
    return f"{steps} losses, all finite: {losses[0]:.4f} ... {losses[-1]:.4f}"


def losses_are_finite(run: Path, *, steps: int, due: Mapping[str, Sequence[int]]) -> str:
    """Each of these losses at exactly its steps, all finite."""
    lines, found = metrics(run), []
    require(len(lines) == steps, f"{run} logged {len(lines)} steps, not {steps}")
    for name, wanted in due.items():
        losses = {line["step"]: float(line[name]) for line in lines if name in line}
        require(list(losses) == list(wanted), f"{run} logged {name} at the steps {list(losses)}, not {list(wanted)}")
        bad = [loss for loss in losses.values() if not math.isfinite(loss)]
        require(not bad, f"{run}: {name} is not finite: {bad}")
        found.append(f"{len(losses)} of {name} (mean {np.mean(list(losses.values())):.3f})")
    return f"{', '.join(found)}, finite"


def is_video(path: Path, size: Size) -> Frames:
    """The frames of an mp4 that decodes, has the size, and whose frames are no solid colour and not all the same."""
    frames = read_frames(path)
    wanted = (size.num_frames, size.height, size.width, 3)
    require(frames.shape == wanted, f"{path} holds frames {frames.shape}, not {wanted}")
    require(probe(path).frames == size.num_frames, f"{path} says that it has {probe(path).frames} frames")
    contrast = np.median([frame.std() for frame in frames])
    require(contrast >= LEAST_CONTRAST, f"{path} is all but one colour: contrast {contrast:.2f} of 255")
    moves = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean()
    require(moves > 0, f"{path} is a still picture")
    return frames


def has_sound(path: Path) -> str:
    """The mp4 has a sound track as long as its pictures, up to a piece of sound (1024 samples), that is no silence."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        seconds = float(stream.duration * stream.time_base)
    info = probe(path)
    pictures = info.frames / info.fps
    require(abs(seconds - pictures) < 0.03, f"{path}: {seconds:.3f} s of sound for {pictures:.3f} s of pictures")
    with SoundTrack(path, SOUND_RATE) as track:
        loudest = float(np.abs(track.read(0, pictures)).max())
    require(loudest > 0, f"{path}: its sound is silence")
    return f"{seconds:.3f} s of sound for {pictures:.3f} s of pictures, at most {loudest:.2f} loud"


def validation_was_shown(run: Path, steps: Sequence[int], size: Size) -> str:
    """mp4, PNG and prompt of every validation are in the run's folder, and tensorboard and wandb got both."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in steps:
        folder = run / "validation" / f"step-{step:06d}"
        is_video(folder / "00.mp4", size)
        with Image.open(folder / "00.png") as sheet:
            require(sheet.width > size.width, f"{folder}/00.png is {sheet.size}: no contact sheet")
        require(bool((folder / "00.txt").read_text(encoding="utf-8").strip()), f"{folder}/00.txt has no prompt")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    for tag in ("validation/00", "validation/00/frames"):
        logged = [image.step for image in events.Images(tag)]
        require(logged == list(steps), f"tensorboard has {tag} at the steps {logged}, not {list(steps)}")
    media = run / "wandb"
    for kind, pattern in (("videos", "*.mp4"), ("images", "*.png")):
        count = len(list(media.glob(f"offline-run-*/files/media/{kind}/validation/**/{pattern}")))
        require(count == len(steps), f"wandb has {count} {kind} of {len(steps)} validations")
    return f"{len(steps)} validations: mp4 and PNG on disk, in tensorboard and in wandb"


def are_complete(run: Path, steps: Sequence[int]) -> None:
    """The run's checkpoints are those of the steps."""
    found = sorted(path.name for path in run.glob("checkpoint-*"))
    wanted = [f"checkpoint-{step:06d}" for step in steps]
    require(found == wanted, f"{run} holds the checkpoints {found}, not {wanted}")
