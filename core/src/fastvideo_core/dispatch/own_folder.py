"""A run's own folder: one run at a time, apart from what it reads, and without links that would lead its files elsewhere."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastvideo_core.config.run import RunConfig
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem

logger = logging.getLogger(__name__)

LOCK = ".run.lock"

_FILES = ("metrics.jsonl", "run.yaml", "environment.json", LOCK)
_FOLDERS = ("validation", "tensorboard", "profile")


@contextmanager
def alone_in(output_dir: Path, *, writes: bool = True, where: str = "training.output_dir") -> Iterator[None]:
    """Keeps other runs out of a run's folder, until the end of the context or of this process, however it ends. Collective.

    The main process holds a POSIX lock on a file there, which its forks do not inherit and which NFS hands on to other
    machines. The file stays with what the run wrote; of a run that wrote nothing (it was refused) nothing stays.

    Args:
        writes: whether the run will write there; otherwise nothing is made for it, and where no run has been none is in the way.
        where: the option that names the folder.

    Raises:
        ConfigError: another run is going on there; on all processes alike.
    """
    made = writes and not os.path.lexists(output_dir)
    descriptor, problem = _lock(output_dir, writes, where) if context.is_main_process() else (None, None)
    try:
        if (problem := context.from_main(problem)) is not None:
            raise ConfigError(problem)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                if os.listdir(output_dir) == [LOCK]:
                    (output_dir / LOCK).unlink()
                    if made:
                        output_dir.rmdir()
            os.close(descriptor)  # not before: the file is removed by who has locked it


def folder_problems(cfg: RunConfig) -> list[Problem]:
    """An output_dir that is, or lies in, a folder that the run reads; links in it where the run would write."""
    output_dir = Path(cfg.training.output_dir)
    read = {"training.data_path": cfg.training.data_path}
    read.update({f"roles.{name}.path": role.path for name, role in cfg.roles.items()})
    problems = []
    for key, path in read.items():
        if path is not None and os.path.isdir(path) and (place := _place_in(output_dir, Path(path))):
            found = f"training.output_dir {output_dir} {place} {key} ({path}), which the run reads"
            problems.append(Problem(found, cfg.source, "a folder of the run's own", "name another output_dir"))
    links = [path for path in _written(output_dir) if path.is_symlink()]
    if links:
        listed = ", ".join(f"{path.relative_to(output_dir)} -> {os.readlink(path)}" for path in links[:5])
        found = f"there are links where the run would write: {listed}"
        allowed = "plain files and folders; output_dir itself may be a link"
        problems.append(Problem(found, str(output_dir), allowed, "remove them, or name another output_dir"))
    return problems


def _lock(folder: Path, writes: bool, where: str) -> tuple[int | None, Problem | None]:
    path = folder / LOCK
    if not writes and not os.path.lexists(path):
        return None, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        found = "is a link" if error.errno == errno.ELOOP else f"cannot be written: {error.strerror}"
        fix = "make the folder writable, remove what is there, or name another one"
        return None, Problem(found, str(path), fix=fix)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = "".join(filter(str.isprintable, os.read(descriptor, 200).decode(errors="replace")))
            os.close(descriptor)
            found = f"another run is going on in it: {holder or 'it has just begun'}"
            fix = f"wait for its end, stop it, or name another {where.rpartition('.')[2]}"
            return None, Problem(found, f"{where} ({folder})", "one run at a time", fix)
        logger.warning("%s cannot be locked (%s): nothing tells when another run begins in it", path, error.strerror)
    try:
        is_at_path = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        is_at_path = False
    if not is_at_path:  # who had locked it has removed it meanwhile
        os.close(descriptor)
        return _lock(folder, writes, where)
    holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    with suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
    return descriptor, None


def _place_in(path: Path, folder: Path) -> str:
    """How a path, there already or not, lies in a folder; empty when it does not. Links are followed."""
    real, status = Path(os.path.realpath(path)), os.stat(folder)
    for parent in (real, *real.parents):
        with suppress(OSError):
            if os.path.samestat(os.stat(parent), status):
                return "is" if parent == real else "lies in"
    return ""


def _written(output_dir: Path) -> Iterator[Path]:
    """What is there already of all that the run writes, checkpoints aside: these are renamed into their place."""
    yield from (output_dir / name for name in (*_FILES, "wandb", "wandb/run-id.txt"))
    for name in _FOLDERS:
        yield output_dir / name
        if not (output_dir / name).is_symlink():
            for folder, folders, files in os.walk(output_dir / name):
                yield from (Path(folder, entry) for entry in (*folders, *files))
