from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageSequence

from fastvideo_core import TrainingArgs
from fastvideo_core.contracts.tracker import LoggedVideo, Tracker
from fastvideo_core.tracking import build
from fastvideo_core.tracking.build import MultiTracker, build_tracker
from fastvideo_data.video_files import animated_gif, write_contact_sheet, write_video
from fastvideo_testing.tracker import InMemoryTracker


@pytest.fixture
def clip(tmp_path):
    """An mp4 whose frames are flat grey of rising brightness, and its contact sheet."""
    frames = np.stack([np.full((32, 48, 3), 20 * i, dtype=np.uint8) for i in range(9)])
    write_video(tmp_path / "clip.mp4", frames, 8.0)
    write_contact_sheet(tmp_path / "clip.png", frames)
    return tmp_path / "clip.mp4", tmp_path / "clip.png"


def args(folder, *trackers: str) -> TrainingArgs:
    return TrainingArgs(
        output_dir=str(folder), max_train_steps=1, trackers=trackers, tracker_project_name="proj", wandb_run_name="name"
    )


class Broken(InMemoryTracker):
    def log(self, metrics, step):
        raise ConnectionError("no network")


def test_one_failing_tracker_is_reported_once_and_hides_nothing_from_the_others(caplog):
    memory = InMemoryTracker()
    tracker = MultiTracker({"broken": Broken(), "memory": memory})
    for step in (1, 2):
        tracker.log({"loss": 1.0}, step)
    assert memory.steps == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]
    (record,) = caplog.records
    assert record.getMessage().startswith("tracker 'broken' failed: ConnectionError: no network")
    assert record.levelname == "ERROR"


def test_everything_reaches_every_tracker(tmp_path):
    one, other = InMemoryTracker(), InMemoryTracker()
    tracker = MultiTracker({"one": one, "other": other})
    tracker.log({"a": 1.0}, 1)
    tracker.log({"a": 2.0}, 2)
    tracker.log_video(LoggedVideo("v", tmp_path, 2, caption="c", contact_sheet=tmp_path))
    tracker.log_video(LoggedVideo("v", tmp_path, 1))
    tracker.resume_after(1)
    tracker.finish()
    assert one == other == InMemoryTracker([(1, {"a": 1.0})], [LoggedVideo("v", tmp_path, 1, "", None)], True)


def test_metrics_always_go_to_a_file_in_the_runs_folder(tmp_path):
    tracker = build_tracker(args(tmp_path / "run"), {})
    tracker.log({"loss": 0.5}, 1)
    tracker.finish()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}
    assert os.listdir(tmp_path / "run") == ["metrics.jsonl"]


def test_processes_that_do_not_report_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "is_main_process", lambda: False)
    assert type(build_tracker(args(tmp_path / "run", "tensorboard"), {})) is Tracker
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_scalars_contact_sheet_and_a_playable_video(tmp_path, clip):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = build_tracker(args(tmp_path / "run", "tensorboard"), {})
    tracker.log({"loss": 0.5}, 1)
    tracker.log_video(LoggedVideo("validation/00", clip[0], 2, "a fox", clip[1], partial(animated_gif, clip[0])))
    tracker.finish()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5)]
    (video,) = events.Images("validation/00")
    gif = Image.open(io.BytesIO(video.encoded_image_string))
    frames = [np.asarray(frame.convert("L")).mean() for frame in ImageSequence.Iterator(gif)]
    assert (video.step, gif.format, gif.size, gif.info["loop"]) == (2, "GIF", (48, 32), 0)
    np.testing.assert_allclose(frames, [20 * i for i in range(9)], atol=6)
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert sum(durations) == pytest.approx(9 * 125, abs=10)
    (sheet,) = events.Images("validation/00/frames")
    assert sheet.encoded_image_string == clip[1].read_bytes()


def test_tensorboard_hides_the_steps_that_a_resumed_run_repeats(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run, steps in ((1, range(1, 8)), (2, range(5, 9))):
        tracker = build_tracker(args(tmp_path, "tensorboard"), {})
        tracker.resume_after(steps[0] - 1)
        for step in steps:
            tracker.log({"run": run}, step)
        tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("run")] == [
        (s, 1 if s < 5 else 2) for s in range(1, 9)
    ]


OFFLINE = """
import sys
sys.modules["moviepy"] = None  # a video must not need it
from fastvideo_core import TrainingArgs
from fastvideo_core.contracts.tracker import LoggedVideo
from fastvideo_core.tracking.build import build_tracker
from pathlib import Path
folder, mp4, png, step, resume = sys.argv[1:]
args = TrainingArgs(
    output_dir=folder,
    max_train_steps=1,
    trackers=("wandb",),
    tracker_project_name="proj",
    resume_from_checkpoint=resume or None,
)
config = {"training": {"seed": 0}, "hf_token": "hush-1", "path": "https://me:hush-2@example.org/x"}
tracker = build_tracker(args, config)
tracker.log({"loss": 0.5}, int(step))
tracker.log_video(LoggedVideo("validation/00", Path(mp4), int(step), caption="a fox", contact_sheet=Path(png)))
tracker.finish()
print("failed" if tracker.attempts.failed else "fine", tracker.trackers["wandb"]._run.id)
"""


@pytest.fixture
def offline(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_GIT": "true"}
    return environment | quiet | {"WANDB_MODE": "offline", "HOME": str(tmp_path)}


@pytest.mark.slow
def test_wandb_works_offline_keeps_its_run_and_no_secrets(tmp_path, clip, offline):
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    ids = []
    for step, resume in (("1", ""), ("2", "latest"), ("3", "")):
        command = [sys.executable, "-c", OFFLINE, str(folder), str(clip[0]), str(clip[1]), step, resume]
        result = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
        outcome, run_id = result.stdout.split()[-2:]
        assert outcome == "fine", result.stderr
        ids.append(run_id)
    assert ids[0] == ids[1] != ids[2]  # going on is the same wandb run, a new training is a new one
    assert ids[2] == (folder / "wandb" / "run-id.txt").read_text().strip()
    media = list((folder / "wandb").rglob("*.mp4"))
    assert media
    assert media[0].read_bytes() == clip[0].read_bytes()
    stored = b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())
    assert b"hush" not in stored
    assert b"***@example.org" in stored


def test_wandb_that_does_not_start_is_a_users_error(tmp_path, offline):
    pytest.importorskip("wandb")
    code = (
        "import sys; from fastvideo_core import TrainingArgs; from fastvideo_core.tracking.wandb import WandbTracker\n"
        "try: WandbTracker(TrainingArgs(output_dir=sys.argv[1], max_train_steps=1), {})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**offline, "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "5"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert "UserError training.trackers: wandb: wandb does not start" in result.stdout, result.stdout + result.stderr
    assert "set WANDB_MODE=offline" in result.stdout
