"""Folders of checkpoints: written aside and renamed, so that each is whole or absent; found; removed when too many."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from fastvideo_core.checkpoint.document import DOCUMENT as DOCUMENT
from fastvideo_core.checkpoint.document import (
    CheckpointDocument,
    OtherFormatError,
    StoredFile,
    parse_document,
    sync,
    synced,
)
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import Crew, PartError
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem

logger = logging.getLogger(__name__)

TENSORS, RUN_CONFIG = "state", "run.yaml"

_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = re.compile(r"\.checkpoint-\d+\.(tmp|replaced|removed)")


class CheckpointWriteError(FastVideoError):
    """A checkpoint could not be written; those before it are intact."""

    title = "the run ended, as a checkpoint could not be written"


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return output_dir / f"checkpoint-{step:06d}"


def rng_name(rank: int) -> str:
    """The file of one process's random state, by its path in the checkpoint."""
    return f"rng/rank-{rank:05d}.safetensors"


def own_state_name(rank: int) -> str:
    """The file of the state that differs from process to process; there for all of them or none."""
    return f"own/rank-{rank:05d}.safetensors"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_aside(
    target: Path,
    crew: Crew,
    write: Callable[[Path], Iterable[Path]],
    seal: Callable[[Path, dict[str, StoredFile]], None],
) -> None:
    """Writes a folder beside `target` that becomes it, synced to disk, when all is well. Collective.

    Args:
        write: writes this process's part of the folder's files, and says which they are.
        seal: done by the main process when it has the list of all files, by path inside.

    Raises:
        CheckpointWriteError: on every process; nothing of the attempt is left, and `target` is as it was.
    """
    aside = target.with_name(f".{target.name}.tmp")
    own: dict[str, StoredFile] = {}

    def make() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        aside.mkdir()

    def write_own() -> None:
        own.update({path.relative_to(aside).as_posix(): synced(path) for path in write(aside)})

    def publish(files: dict[str, StoredFile]) -> None:
        seal(aside, files)
        for folder, _, _ in os.walk(aside):
            sync(Path(folder))
        _replace(aside, target)

    try:
        crew.do(make, main_only=True)
        crew.do(write_own)
        files = {name: file for one in crew.gather(own) for name, file in one.items()}
        crew.do(lambda: publish(files), main_only=True)
    except PartError as error:
        where = str(target) if context.world_size() == 1 else f"{target} (process {error.failure.rank})"
        fix = "free space or make the folder writable; earlier checkpoints are intact"
        found = f"the checkpoint could not be written: {error.failure.text}"
        problem = Problem(found, where, fix=fix if error.failure.by_system else "earlier checkpoints are intact")
        raise CheckpointWriteError(problem) from (error.__cause__ or error)
    finally:
        if context.is_main_process():
            _remove(aside)


def set_aside(path: Path) -> None:
    """Keeps a checkpoint that is not whole under another name, so that a new one of its step does not replace it."""
    names = (path.with_name(f"{path.name}.damaged{suffix}") for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    kept = next(name for name in names if not name.exists())
    try:
        os.rename(path, kept)
    except OSError as error:
        logger.error("%s could not be set aside as %s: %s", path, kept.name, error.strerror)
    else:
        logger.error("%s is kept as %s; remove it when it is not needed", path, kept.name)


def remove_oldest(output_dir: Path, keep: int, newest: Path) -> None:
    """Removes complete checkpoints, lowest step first, until `keep` are left; never `newest`. 0 keeps all."""
    if keep == 0:
        return
    others = [path for _, path in _numbered(output_dir) if path != newest and not flaw(path)]
    for path in others[: max(0, len(others) - (keep - 1))]:
        doomed = path.with_name(f".{path.name}.removed")
        try:
            os.rename(path, doomed)
            _remove(doomed, strict=True)
        except OSError as error:
            logger.warning("the old checkpoint %s could not be removed: %s", path, error.strerror)


def put_back_replaced(output_dir: Path) -> None:
    """Puts back a checkpoint that a killed save was just replacing."""
    for path in output_dir.glob(".checkpoint-*.replaced"):
        original = output_dir / path.name[1:].removesuffix(".replaced")
        if not original.exists():
            os.rename(path, original)


def clean_leftovers(output_dir: Path) -> None:
    """Removes what a killed save left behind; no other process may be saving here."""
    put_back_replaced(output_dir)
    for path in output_dir.glob(".checkpoint-*"):
        if _ASIDE.fullmatch(path.name):
            _remove(path)


def _replace(aside: Path, target: Path) -> None:
    replaced = target.with_name(f".{target.name}.replaced")
    if target.exists():
        _remove(replaced)
        os.rename(target, replaced)
    try:
        os.rename(aside, target)
    except OSError:
        if replaced.exists():
            os.rename(replaced, target)
        raise
    sync(target.parent)
    _remove(replaced)


def _remove(path: Path, *, strict: bool = False) -> None:
    """Removes a folder, or a link in its place and nothing of what that leads to."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=not strict)


# --- finding and reading ----------------------------------------------------------------------------------------------


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` is a checkpoint's folder, or a run's folder with a checkpoint in it."""
    path = Path(path).expanduser()
    return (path / DOCUMENT).is_file() or any((folder / DOCUMENT).is_file() for _, folder in _numbered(path))


def resolve_checkpoint(path: str | Path) -> Path:
    """The complete checkpoint that `path` means: itself, or the newest in a run's folder, others being passed over with a
    warning. Their tensors are not looked at.

    Raises:
        CheckpointError: there is none, or it is not whole.
    """
    for folder in named_checkpoints(path):
        why = flaw(folder)
        if not why:
            return folder
        if folder == Path(path).expanduser():
            raise not_whole(folder, why)
        logger.warning("%s is passed over: it is not whole (%s)", folder, why)
    raise CheckpointError(
        Problem(
            found="there is no whole checkpoint in it",
            where=str(path),
            fix="check the path; it is the output_dir of a run that has saved",
        )
    )


def named_checkpoints(path: str | Path) -> list[Path]:
    """The checkpoint at `path`, or all those in a run's folder, the newest first, whole or not.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(Problem("there is no such folder", where=str(path), fix="check the path"))
    if found := checkpoints(path):
        return found
    if _NAME.fullmatch(path.resolve().name) or (path / DOCUMENT).is_file():
        return [path]
    raise CheckpointError(
        Problem(
            found="this is not a checkpoint, and holds none",
            where=str(path),
            allowed="a folder checkpoint-<step>, or the output_dir of a run that has some",
        )
    )


def checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoints of a run, whole or not, the newest first."""
    return [path for _, path in reversed(_numbered(output_dir))]


def later_checkpoints(output_dir: Path, step: int) -> list[Path]:
    """The checkpoints of steps after `step`."""
    return [path for number, path in _numbered(output_dir) if number > step]


def flaw(folder: Path) -> str:
    """Why a checkpoint is not whole, by its list of files; empty when it is. Reads none of these: `choice.damage` does."""
    try:
        document = parse_document(folder)
    except OtherFormatError:
        return ""
    except CheckpointError as error:
        return f"{DOCUMENT}: {error.problems[0].found}"
    for name, file in document.files.items():
        try:
            actual = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if actual != file.size:
            return f"{name} has {actual} bytes instead of {file.size}"
    return ""


def read_document(folder: Path) -> CheckpointDocument:
    """The document of a complete checkpoint.

    Raises:
        CheckpointError: it is not whole, or of another format version.
    """
    if why := flaw(folder):
        raise not_whole(folder, why)
    return parse_document(folder)


def not_whole(folder: Path, why: str) -> CheckpointError:
    """The error of a checkpoint that cannot be gone on from."""
    return CheckpointError(Problem(f"the checkpoint is not whole: {why}", str(folder), fix="use another checkpoint"))


def _numbered(output_dir: Path) -> list[tuple[int, Path]]:
    if not output_dir.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in output_dir.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in matches if match)
