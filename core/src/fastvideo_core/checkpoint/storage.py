"""Folders of checkpoints: written aside and renamed, so that each is whole or absent; found; removed when too many."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from fastvideo_core.checkpoint.checksums import SUFFIX, checksum
from fastvideo_core.checkpoint.document import DOCUMENT as DOCUMENT
from fastvideo_core.checkpoint.document import READABLE, CheckpointDocument, parse_document, unsummed
from fastvideo_core.checkpoint.document import write_document as write_document
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


def rng_path(folder: Path, rank: int) -> Path:
    """The file of one process's random state."""
    return folder / "rng" / f"rank-{rank:05d}.safetensors"


def own_state_path(folder: Path, rank: int) -> Path:
    """The file of what one process's state has of its own; there for all processes or none."""
    return folder / "own" / f"rank-{rank:05d}.safetensors"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_aside(target: Path, crew: Crew, write: Callable[[Path], None], seal: Callable[[Path], None]) -> None:
    """Writes a folder beside `target` that becomes it, synced to disk, when all is well. Collective.

    Args:
        write: done by every process: its part of the folder's files.
        seal: done by the main process after all have written.

    Raises:
        CheckpointWriteError: on every process; nothing of the attempt is left, and `target` is as it was.
    """
    aside = target.with_name(f".{target.name}.tmp")

    def make() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        aside.mkdir()

    def publish() -> None:
        seal(aside)
        for folder, _, _ in os.walk(aside):
            _sync_folder(Path(folder))
        _replace(aside, target)

    try:
        crew.do(make, main_only=True)
        crew.do(lambda: write(aside))
        crew.do(publish, main_only=True)
    except PartError as error:
        where = str(target) if context.world_size() == 1 else f"{target} (process {error.failure.rank})"
        fix = "free space or make the folder writable; earlier checkpoints are intact"
        found = f"the checkpoint could not be written: {error.failure.text}"
        problem = Problem(found, where, fix=fix if error.failure.by_system else "earlier checkpoints are intact")
        raise CheckpointWriteError(problem) from (error.__cause__ or error)
    finally:
        if context.is_main_process():
            _remove(aside)


def file_sizes(folder: Path) -> dict[str, int]:
    """Size of every file below `folder`, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def sums_of_sums(folder: Path) -> dict[str, int]:
    """The sum of every file below `folder` that holds the sums of another."""
    files = sorted(folder.rglob(f"*{SUFFIX}"))
    return {path.relative_to(folder).as_posix(): checksum(path.read_bytes()) for path in files}


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
    _sync_folder(target.parent)
    _remove(replaced)


def _remove(path: Path, *, strict: bool = False) -> None:
    """Removes a folder, or a link in its place and nothing of what that leads to."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=not strict)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- finding and reading ----------------------------------------------------------------------------------------------


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` is a checkpoint's folder, or a run's folder with a checkpoint in it."""
    path = Path(path).expanduser()
    return (path / DOCUMENT).is_file() or any((folder / DOCUMENT).is_file() for _, folder in _numbered(path))


def resolve_checkpoint(path: str | Path) -> Path:
    """The complete checkpoint that `path` means: itself, or the newest in a run's folder; its tensors are not looked at.

    Raises:
        CheckpointError: there is none, or it is not whole.
    """
    found = named_checkpoints(path)
    if found != [Path(path).expanduser()]:
        return latest_checkpoint(Path(path).expanduser())
    if why := flaw(found[0]):
        raise not_whole(found[0], why)
    return found[0]


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


def latest_checkpoint(output_dir: Path) -> Path:
    """The complete checkpoint of the highest step; others are passed over with a warning. Its tensors are not looked at.

    Raises:
        CheckpointError: there is none.
    """
    for path in checkpoints(output_dir):
        why = flaw(path)
        if not why:
            return path
        logger.warning("%s is passed over: it is not whole (%s)", path, why)
    raise CheckpointError(
        Problem(
            found="there is no whole checkpoint in it",
            where=str(output_dir),
            fix="check the path; it is the output_dir of a run that has saved",
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
    except CheckpointError as error:
        return f"{DOCUMENT}: {error.problems[0].found}"
    if missing := unsummed(folder, document):
        return f"the sums of {missing[0]} are missing"
    for name, size in document.files.items():
        try:
            actual = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if actual != size:
            return f"{name} has {actual} bytes instead of {size}"
    return ""


def read_document(folder: Path) -> CheckpointDocument:
    """The document of a complete checkpoint.

    Raises:
        CheckpointError: it is not whole, or of another format version.
    """
    if why := flaw(folder):
        raise not_whole(folder, why)
    document = parse_document(folder)
    if document.format not in READABLE:
        writer = document.versions.get("fastvideo-core", "another version")
        raise CheckpointError(
            Problem(
                found=f"the checkpoint has format {document.format}, written by fastvideo-core {writer}",
                where=str(folder),
                allowed=" or ".join(f"format {number}" for number in READABLE),
                fix=f"pip install fastvideo-core=={writer}, or export it there",
            )
        )
    return document


def not_whole(folder: Path, why: str) -> CheckpointError:
    """The error of a checkpoint that cannot be gone on from."""
    return CheckpointError(Problem(f"the checkpoint is not whole: {why}", str(folder), fix="use another checkpoint"))


def _numbered(output_dir: Path) -> list[tuple[int, Path]]:
    if not output_dir.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in output_dir.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in matches if match)
