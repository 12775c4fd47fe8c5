"""What a launcher (ours, torchrun, accelerate launch, srun) tells the processes that it starts, and what they tell it.

It sets environment variables; they leave notes (who takes signals, why the run failed) in the folder that torch's launcher
makes for its processes' error files. torch's own error files (@record) are not used: their times are whole seconds, and of
two errors in one second torch shows that of the lower rank, often only that its peer is gone (test_launcher_notes.py).
"""

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastvideo_core.errors import ConfigError, Problem

LAUNCHER = "FASTVIDEO_LAUNCHER"  # tells processes the id of the one that started them, where that is our launcher
# torch's variables, and those of Slurm that say the same
_OF_SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
_FAILED = "fastvideo-failed"
_LAST_STEP = 120.0  # seconds that a process without its launcher has for ending in order


def launched_processes() -> int | None:
    """How many processes a launcher started; None without one. Raises ConfigError where WORLD_SIZE is no such number."""
    if _is_task_of_srun():
        return int(os.environ["SLURM_STEP_NUM_TASKS"])
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    count = os.environ["WORLD_SIZE"]
    if not count.isdigit() or int(count) < 1:
        found, fix = f"WORLD_SIZE is {count!r}", "unset RANK and WORLD_SIZE"
        raise ConfigError(Problem(found, "environment", "a whole number from 1", fix))
    return int(count)


def complete_environment() -> None:
    """Sets torch's variables from Slurm's where srun started this process; all that torch needs is there afterwards.

    Raises ConfigError where something set RANK and WORLD_SIZE, or srun started several tasks, without the rest.
    """
    count, by_srun = launched_processes(), _is_task_of_srun()
    if count is None:
        return
    fix = "start them with torchrun, accelerate launch or srun, or unset RANK and WORLD_SIZE: training.num_gpus starts them"
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        found = f"srun started {count} processes" if by_srun else "RANK and WORLD_SIZE are set, as a launcher does"
        found += f", but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        if by_srun:
            fix = 'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) MASTER_PORT=29500'
        allowed = "the name of rank 0's machine, and a free port there"
        raise ConfigError(Problem(found, "environment", allowed, fix))
    if by_srun:
        os.environ.update({name: os.environ[source] for name, source in _OF_SLURM.items()})
    for name in ("RANK", "LOCAL_RANK"):
        value = os.environ.get(name, "0")
        if not value.isdigit() or int(value) >= count:
            raise ConfigError(Problem(f"{name} is {value!r}", "environment", f"0 to {count - 1} (WORLD_SIZE)", fix))


def _is_task_of_srun() -> bool:
    """Whether this process is one of several tasks of a Slurm step, and no other launcher has named it.

    A step of one task is no launch: torchrun may be what it runs, or a command that starts its own processes.
    """
    count = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return "RANK" not in os.environ and "SLURM_PROCID" in os.environ and count.isdigit() and int(count) > 1


def has_own_launcher() -> bool:
    """Whether our launcher started this process, and not another one."""
    return {LAUNCHER, "RANK"} <= os.environ.keys()


def end_with_launcher() -> None:
    """Has this process end when our launcher is gone, as after a SIGTERM: with a checkpoint, if it is training."""

    def watch(launcher: int) -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_STEP)
        os._exit(128 + signal.SIGTERM)

    if has_own_launcher():
        threading.Thread(target=watch, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def _notes() -> Path | None:
    """The folder that torch's launcher, ours or torchrun's, gave the processes of this machine."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(error_file).parent.parent if error_file and "RANK" in os.environ else None


def register_ready() -> None:
    """Tells the launcher and the other processes that this one takes signals from now on."""
    if (folder := _notes()) is not None:
        with suppress(OSError):  # a full disk: a signal will end this process at once
            (folder / f"ready-{os.getpid()}").touch()


def ready_processes(folder: Path) -> list[int]:
    """Ids of the processes that take signals."""
    return [int(path.name.removeprefix("ready-")) for path in folder.rglob("ready-*")]


def has_ended_peer() -> bool:
    """Whether a process of this launch that took signals is gone."""
    folder = _notes()
    try:
        for pid in ready_processes(folder) if folder is not None else ():
            os.kill(pid, 0)
    except OSError:  # or the id has become another user's
        return True
    return False


@dataclass(frozen=True)
class RunError:
    """Why a run failed: the text to be shown, the exit status of the process that said so, and when (seconds since the epoch)."""

    text: str
    status: int
    time: float


def report_error(text: str, status: int, started: float) -> bool:
    """Notes why this process fails; whether it must say so itself: the first of a launch that fails does, or our launcher for it.

    True as well where a launcher gives its processes nothing in common. A note from before this process `started` (seconds
    since the epoch) is of an earlier launch, several of which may follow each other in one Slurm step.
    """
    if (note := _error_note()) is None:
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


def _error_note() -> Path | None:
    """A file that only the processes of this machine name that one launcher started."""
    if (folder := _notes()) is not None:
        return folder / _FAILED
    if {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= os.environ.keys() and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        parts = (os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
        return Path(tempfile.gettempdir()) / "-".join([_FAILED, str(os.getuid()), *parts])
    return None
