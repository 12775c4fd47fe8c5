"""A run's output_dir: locked while it runs, apart from what it reads, and without links that would lead its files elsewhere."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastvideo_core.checkpoint import storage
from fastvideo_core.config.output_folder import check_writable_folder
from fastvideo_core.config.run import RunConfig
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem

logger = logging.getLogger(__name__)

LOCK = ".run.lock"
"""The file that whoever writes into a run's or a data set's folder holds locked."""
# What a run writes beside checkpoints, which are renamed into their place.
_FOLDERS = ("validation", "tensorboard", "profile")
_WRITTEN = ("metrics.jsonl", "run.yaml", "environment.json", LOCK, "wandb", "wandb/run-id.txt", *_FOLDERS)


@contextmanager
def alone_in(output_dir: Path, *, writes: bool = True, where: str = "training.output_dir") -> Iterator[None]:
    """Keeps other runs out of a folder until the end of the context or of this process, however it ends. Collective.

    The main process holds a POSIX lock on a file there, which its forks do not inherit and which NFS hands on to other
    machines; the file stays. One that will not write (`writes`) makes nothing. `where` is the option that names the folder.
    Raises ConfigError where another run is going on there, on all processes alike.
    """
    held = _lock(output_dir, writes, where) if context.is_main_process() else None
    try:
        if problem := context.from_main(held if isinstance(held, Problem) else None):
            raise ConfigError(problem)
        yield
    finally:
        if isinstance(held, int):
            os.close(held)


def _lock(folder: Path, writes: bool, where: str) -> int | Problem | None:
    """The locked file's descriptor, or why there is none."""
    path = folder / LOCK
    if not writes and not os.path.lexists(path):
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        found = "is a link" if error.errno == errno.ELOOP else f"cannot be written: {error.strerror}"
        return Problem(found, str(path), fix="make the folder writable, remove what is there, or name another one")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = "".join(filter(str.isprintable, os.read(descriptor, 200).decode(errors="replace")))
            os.close(descriptor)
            found = f"another run is going on in it: {holder or 'it has just begun'}"
            fix = f"wait for its end, stop it, or name another {where.rpartition('.')[2]}"
            return Problem(found, f"{where} ({folder})", "one run at a time", fix)
        logger.warning("%s cannot be locked (%s): nothing tells when another run begins in it", path, error.strerror)
    holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    with suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
    return descriptor


def output_problems(cfg: RunConfig) -> list[Problem]:
    """An output_dir that cannot be written, is not the run's own, or that a new run would share with an earlier one."""
    args = cfg.training
    output_dir = Path(args.output_dir)
    of_roles = {f"roles.{name}.path": role.path for name, role in cfg.roles.items()}
    problems = []
    for key, path in {**{key: one.path for key, one in args.data_sources.items()}, **of_roles}.items():
        if os.path.isdir(path) and (place := _place_in(output_dir, path)):
            found = f"training.output_dir {output_dir} {place} {key} ({path}), which the run reads"
            problems.append(Problem(found, cfg.source, "a folder of the run's own", "name another output_dir"))
    folders = [output_dir / name for name in _FOLDERS if not (output_dir / name).is_symlink()]
    written = [*(output_dir / name for name in _WRITTEN), *(path for folder in folders for path in folder.rglob("*"))]
    if links := [path for path in written if path.is_symlink()]:
        listed = ", ".join(f"{path.relative_to(output_dir)} -> {os.readlink(path)}" for path in links[:5])
        found = f"there are links where the run would write: {listed}"
        allowed = "plain files and folders; output_dir itself may be a link"
        problems.append(Problem(found, str(output_dir), allowed, "remove them, or name another output_dir"))
    try:
        check_writable_folder(args.output_dir, "training.output_dir")
    except ConfigError as error:
        problems += error.problems
    if args.resume_from_checkpoint is None and (earlier := storage.checkpoints(output_dir, after=0)):
        found = f"training.output_dir {args.output_dir} already holds {earlier[-1].name}"
        fix = "go on with --resume latest, name another output_dir, or remove the old run"
        problems.append(Problem(found, cfg.source, "a new folder for a new run", fix))
    return problems


def _place_in(path: Path, folder: str) -> str:
    """How a path, there already or not, lies in a folder; empty when it does not. Links are followed."""
    real = Path(os.path.realpath(path))
    for parent in (real, *real.parents):
        if os.path.exists(parent) and os.path.samefile(parent, folder):
            return "is" if parent == real else "lies in"
    return ""
