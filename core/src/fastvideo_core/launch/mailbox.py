"""Notes that the processes of one launch on one machine leave each other: who takes signals, and why the run failed.

They lie in the folder that torch's launcher makes for its processes' error files. torch's own error files (@record) are not
used: their times are whole seconds, and of two errors in one second torch shows that of the lower rank, which is often only
that its peer is gone (test_mailbox.py shows it).
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = "FASTVIDEO_LAUNCHER"
"""The variable that tells processes the id of the one that started them, where that is our launcher."""

_FAILED = "fastvideo-failed"
_LAST_STEP = 120.0  # seconds that a process without its launcher has for ending in order


@dataclass(frozen=True)
class RunError:
    """Why a run failed: the text to be shown, the exit status of the process that said so, and when (seconds since the epoch)."""

    text: str
    status: int
    time: float


def has_own_launcher() -> bool:
    """Whether our launcher started this process, and not another one."""
    return LAUNCHER in os.environ and "RANK" in os.environ


def end_with_launcher() -> None:
    """Has this process end when our launcher is gone, as after a SIGTERM: with a checkpoint, if it is training."""
    if has_own_launcher():
        launcher = int(os.environ[LAUNCHER])
        threading.Thread(target=_watch_launcher, args=(launcher,), name="fastvideo-launcher", daemon=True).start()


def _watch_launcher(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_STEP)
    os._exit(128 + signal.SIGTERM)


def register_ready() -> None:
    """Tells the launcher and the other processes that this one takes signals from now on."""
    if (folder := _folder()) is not None:
        with suppress(OSError):  # a full disk: a signal will end this process at once
            (folder / f"ready-{os.getpid()}").touch()


def ready_processes(folder: Path) -> list[int]:
    """Ids of the processes that take signals."""
    return [int(path.name.removeprefix("ready-")) for path in folder.rglob("ready-*")]


def has_ended_peer() -> bool:
    """Whether a process of this launch that took signals is gone."""
    folder = _folder()
    try:
        for pid in ready_processes(folder) if folder is not None else ():
            os.kill(pid, 0)
    except OSError:  # or the id has become another user's
        return True
    return False


def report_error(text: str, status: int, started: float) -> bool:
    """Notes why this process fails; whether it must say so itself: the first of a launch that fails does, or our launcher for it.

    True as well where a launcher gives its processes nothing in common. A note from before this process `started` (seconds
    since the epoch) is of an earlier launch, several of which may follow each other in one Slurm step.
    """
    note = _error_note()
    if note is None:
        return True
    try:
        with suppress(FileNotFoundError):
            found = note.lstat()
            if found.st_mtime < started or found.st_uid != os.getuid():
                note.unlink()
        with note.open("x", encoding="utf-8") as file:
            json.dump({"text": text, "status": status}, file)
    except FileExistsError:
        return False
    except OSError:
        return True
    return not has_own_launcher()


def reported_error(folder: Path) -> RunError | None:
    """What the first process that failed said, if any did."""
    for note in folder.rglob(_FAILED):
        with suppress(ValueError):  # it was killed while it wrote
            return RunError(**json.loads(note.read_text(encoding="utf-8")), time=note.stat().st_mtime)
    return None


def _folder() -> Path | None:
    """The folder that torch's launcher, ours or torchrun's, gave the processes of this machine."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(error_file).parent.parent if error_file and "RANK" in os.environ else None


def _error_note() -> Path | None:
    """A file that only the processes of this machine name that one launcher started."""
    if (folder := _folder()) is not None:
        return folder / _FAILED
    if {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= os.environ.keys() and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        parts = (os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
        return Path(tempfile.gettempdir()) / "-".join([_FAILED, str(os.getuid()), *parts])
    return None
