"""The processes that a launcher started for one run on this machine: they know of each other through a folder.

Ours gives them one of its own: they register there and leave their errors, of which it shows one, and it hands signals on
to those who can take them. Under other launchers the first process that fails says so, and the others leave it at that.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER_VARIABLE = "FASTVIDEO_LAUNCHER_FOLDER"

_LOOK_EVERY = 1.0
"""Seconds between two looks at whether the launcher is there."""

_LAST_STEP = 120.0
"""Seconds that a process without its launcher has for ending in order."""


@dataclass(frozen=True)
class ProcessError:
    """What a process said before it ended.

    Args:
        rank: the process.
        time: seconds since the epoch.
        text: as it is to be shown.
        status: the exit status that it ends with, unless it is ended before.
    """

    rank: int
    time: float
    text: str
    status: int


def launcher_folder() -> Path | None:
    """Where the launcher of this process reads; None when it is not ours."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder and "RANK" in os.environ else None


def register_launcher(folder: Path) -> None:
    """Tells the processes that this one is their launcher."""
    _write(folder / "launcher", str(os.getpid()))


def end_with_launcher() -> None:
    """Has this process end when our launcher is gone, as after a SIGTERM: with a checkpoint, if it is training."""
    folder = launcher_folder()
    if folder is not None:
        launcher = int((folder / "launcher").read_text())
        threading.Thread(target=_watch_launcher, args=(launcher,), name="fastvideo-launcher", daemon=True).start()


def _watch_launcher(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_STEP)
    os._exit(128 + signal.SIGTERM)


def register_process() -> None:
    """Tells the launcher and the other processes that this one is there."""
    _register("pid")


def register_ready() -> None:
    """Tells the launcher that this process takes signals from now on."""
    _register("ready")


def ready_processes(folder: Path) -> list[int]:
    """Ids of the processes that take signals."""
    return _registered(folder, "ready")


def ended_siblings() -> list[int]:
    """Ids of registered processes of this run that are gone."""
    folder = launcher_folder()
    return [] if folder is None else [pid for pid in _registered(folder, "pid") if not _is_alive(pid)]


def report_error(text: str, status: int) -> bool:
    """Leaves `text` for the launcher to show; False when there is none of ours, so that it must be shown here."""
    folder = launcher_folder()
    if folder is None or not folder.is_dir():
        return False
    rank = int(os.environ["RANK"])
    _write(folder / f"error-{rank}", json.dumps(asdict(ProcessError(rank, time.time(), text, status))))
    return True


def is_first_to_fail(started: float) -> bool:
    """Whether no other process of this launch and machine has said that it failed; asked once by each that has something
    to say.

    True as well where the launcher gives its processes nothing in common. A mark from before this process started is of
    an earlier launch: several may follow each other in one Slurm step, or in one process of torchrun.

    Args:
        started: when this process did, in seconds since the epoch.
    """
    place = _place_of_errors()
    if place is None:
        return True
    try:
        with suppress(FileNotFoundError):
            mark = place.lstat()
            if mark.st_mtime < started or mark.st_uid != os.getuid():
                place.unlink()
        with place.open("x"):
            return True
    except FileExistsError:
        return False
    except OSError:
        return True


def _place_of_errors() -> Path | None:
    """A file that only the processes of this machine name that one launcher started."""
    if (error_file := os.environ.get("TORCHELASTIC_ERROR_FILE")) is not None and "RANK" in os.environ:
        return Path(error_file).parent.parent / "fastvideo-failed"  # torchrun: <attempt>/<local rank>/error.json
    if {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= os.environ.keys() and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        parts = (os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
        return Path(tempfile.gettempdir()) / "-".join(["fastvideo-failed", str(os.getuid()), *parts])
    return None


def reported_errors(folder: Path) -> list[ProcessError]:
    """What processes left, earliest first."""
    errors = [ProcessError(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("error-*")]
    return sorted(errors, key=lambda error: error.time)


def _register(kind: str) -> None:
    if (folder := launcher_folder()) is not None:
        _write(folder / f"{kind}-{os.environ['RANK']}", str(os.getpid()))


def _registered(folder: Path, kind: str) -> list[int]:
    return [int(path.read_text()) for path in sorted(folder.glob(f"{kind}-*"))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
