"""Folders of checkpoints: written aside and renamed, so that each is whole or absent; found; removed when too many."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

from fastvideo_core.checkpoint.document import DOCUMENT as DOCUMENT
from fastvideo_core.checkpoint.document import CheckpointDocument, OtherFormatError, parse_document, sync
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


def aside_of(target: Path) -> Path:
    """The folder in which a checkpoint is written before `publish` puts it in its place."""
    return target.with_name(f".{target.name}.tmp")


def make_empty(aside: Path) -> None:
    """Makes the folder; what an earlier attempt left in it is gone."""
    aside.parent.mkdir(parents=True, exist_ok=True)
    remove(aside)
    aside.mkdir()


def publish(aside: Path, target: Path) -> None:
    """Puts a folder, once it is on the disk, in the place of `target`, which stays as it was when that fails."""
    for folder, _, _ in os.walk(aside):
        sync(Path(folder))
    replaced = target.with_name(f".{target.name}.replaced")
    if target.exists():
        remove(replaced)
        os.rename(target, replaced)
    try:
        os.rename(aside, target)
    except OSError:
        if replaced.exists():
            os.rename(replaced, target)
        raise
    sync(target.parent)
    remove(replaced)


def remove(path: Path, *, strict: bool = False) -> None:
    """Removes a folder, or a link in its place and nothing of what that leads to."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=not strict)


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
    others = [path for path in checkpoints(output_dir) if path != newest and not flaw(path)]
    for path in others[: max(0, len(others) - (keep - 1))]:
        doomed = path.with_name(f".{path.name}.removed")
        try:
            os.rename(path, doomed)
            remove(doomed, strict=True)
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
            remove(path)


# --- finding and reading ----------------------------------------------------------------------------------------------


def checkpoints(output_dir: Path, after: int = -1) -> list[Path]:
    """The checkpoints of steps after `after`, whole or not, the oldest first."""
    folders = [path for path in output_dir.iterdir() if path.is_dir()] if output_dir.is_dir() else []
    found = sorted((int(name[1]), path) for path in folders if (name := _NAME.fullmatch(path.name)))
    return [path for step, path in found if step > after]


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` is a checkpoint's folder, or a run's folder with a checkpoint in it."""
    path = Path(path).expanduser()
    return any((folder / DOCUMENT).is_file() for folder in (path, *checkpoints(path)))


def resolve_checkpoint(path: str | Path) -> Path:
    """The complete checkpoint that `path` means: itself, or the newest in a run's folder, others being passed over with a
    warning. Their tensors are not looked at. Raises CheckpointError when there is none, or it is not whole."""
    for folder in named_checkpoints(path):
        why = flaw(folder)
        if not why:
            return folder
        if folder == Path(path).expanduser():
            raise not_whole(folder, why)
        logger.warning("%s is passed over: it is not whole (%s)", folder, why)
    fix = "check the path; it is the output_dir of a run that has saved"
    raise CheckpointError(Problem("there is no whole checkpoint in it", str(path), fix=fix))


def named_checkpoints(path: str | Path) -> list[Path]:
    """The checkpoint at `path`, or all those in a run's folder, newest first, whole or not; raises CheckpointError if none."""
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(Problem("there is no such folder", str(path), fix="check the path"))
    if found := checkpoints(path):
        return found[::-1]
    if _NAME.fullmatch(path.resolve().name) or (path / DOCUMENT).is_file():
        return [path]
    allowed = "a folder checkpoint-<step>, or the output_dir of a run that has some"
    raise CheckpointError(Problem("this is not a checkpoint, and holds none", str(path), allowed))


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
    """The document of a complete checkpoint; raises CheckpointError when it is not whole, or of another format."""
    if why := flaw(folder):
        raise not_whole(folder, why)
    return parse_document(folder)


def not_whole(folder: Path, why: str) -> CheckpointError:
    """The error of a checkpoint that cannot be gone on from."""
    return CheckpointError(Problem(f"the checkpoint is not whole: {why}", str(folder), fix="use another checkpoint"))
