"""Folders of checkpoints: written aside and renamed, so that each is whole or absent; found; removed when too many."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastvideo_core.checkpoint.tree import Json
from fastvideo_core.distributed import context
from fastvideo_core.distributed.agreement import Crew, PartError
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the layout of a checkpoint folder; a reader refuses any other."""

TENSORS, DOCUMENT, RUN_CONFIG = "state", "state.json", "run.yaml"

_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = re.compile(r"\.checkpoint-\d+\.(tmp|replaced|removed)")


class CheckpointWriteError(FastVideoError):
    """A checkpoint could not be written; those before it are intact."""

    title = "the run ended, as a checkpoint could not be written"


@dataclass(frozen=True)
class CheckpointDocument:
    """What state.json holds; it is the last file written, and lists all others.

    Args:
        format: version of the layout.
        step: optimizer steps done.
        world_size: processes that wrote it.
        versions: of fastvideo-core, torch and the plug-ins.
        files: size in bytes of every other file, by path inside the folder.
        state: skeleton of the state tree, see `tree.split`.
    """

    format: int
    step: int
    world_size: int
    versions: Mapping[str, str]
    files: Mapping[str, int]
    state: Json


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
        shutil.rmtree(aside, ignore_errors=True)
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
            shutil.rmtree(aside, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Writes and syncs one file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_document(folder: Path, document: CheckpointDocument) -> None:
    """Writes state.json; everything else must be there already."""
    write_file(folder / DOCUMENT, json.dumps(asdict(document), allow_nan=False, indent=1).encode())


def file_sizes(folder: Path) -> dict[str, int]:
    """Size of every file below `folder`, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def remove_oldest(output_dir: Path, keep: int, newest: Path) -> None:
    """Removes complete checkpoints, lowest step first, until `keep` are left; never `newest`. 0 keeps all."""
    if keep == 0:
        return
    others = [path for _, path in _numbered(output_dir) if path != newest and not flaw(path)]
    for path in others[: max(0, len(others) - (keep - 1))]:
        doomed = path.with_name(f".{path.name}.removed")
        try:
            os.rename(path, doomed)
            shutil.rmtree(doomed)
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
            shutil.rmtree(path, ignore_errors=True)


def _replace(aside: Path, target: Path) -> None:
    replaced = target.with_name(f".{target.name}.replaced")
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
    try:
        os.rename(aside, target)
    except OSError:
        if replaced.exists():
            os.rename(replaced, target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


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
    """The complete checkpoint that `path` means: itself, or the newest in a run's folder.

    Raises:
        CheckpointError: there is none, or it is incomplete.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(Problem("there is no such folder", where=str(path), fix="check the path"))
    if _numbered(path):
        return latest_checkpoint(path)
    if _NAME.fullmatch(path.resolve().name) or (path / DOCUMENT).is_file():
        if why := flaw(path):
            raise _incomplete(path, why)
        return path
    raise CheckpointError(
        Problem(
            found="this is not a checkpoint, and holds none",
            where=str(path),
            allowed="a folder checkpoint-<step>, or the output_dir of a run that has some",
        )
    )


def latest_checkpoint(output_dir: Path) -> Path:
    """The complete checkpoint of the highest step; incomplete ones are passed over with a warning.

    Raises:
        CheckpointError: there is none.
    """
    for _, path in reversed(_numbered(output_dir)):
        why = flaw(path)
        if not why:
            return path
        logger.warning("%s is passed over: it is incomplete (%s)", path, why)
    raise CheckpointError(
        Problem(
            found="there is no complete checkpoint to resume from",
            where=str(output_dir),
            fix="check training.output_dir, or start without resuming",
        )
    )


def later_checkpoints(output_dir: Path, step: int) -> list[Path]:
    """The checkpoints of steps after `step`."""
    return [path for number, path in _numbered(output_dir) if number > step]


def flaw(folder: Path) -> str:
    """Why a checkpoint is not whole, by its list of files; empty when it is."""
    try:
        document = _parse(folder)
    except OSError as error:
        return f"{DOCUMENT}: {error.strerror}"
    except (ValueError, TypeError, AttributeError, KeyError):
        return f"{DOCUMENT} is damaged"
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
        CheckpointError: it is incomplete or of another format version.
    """
    if why := flaw(folder):
        raise _incomplete(folder, why)
    document = _parse(folder)
    if document.format != FORMAT:
        writer = document.versions.get("fastvideo-core", "another version")
        raise CheckpointError(
            Problem(
                found=f"the checkpoint has format {document.format}, written by fastvideo-core {writer}",
                where=str(folder),
                allowed=f"format {FORMAT}",
                fix=f"pip install fastvideo-core=={writer}, or export it there",
            )
        )
    return document


def _incomplete(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(Problem(f"the checkpoint is incomplete: {why}", str(folder), fix="use another checkpoint"))


def _parse(folder: Path) -> CheckpointDocument:
    content = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    names = ("format", "step", "world_size", "versions", "files", "state")
    document = CheckpointDocument(**{name: content[name] for name in names})
    if type(document.format) is not int or type(document.step) is not int or not isinstance(document.files, dict):
        raise ValueError("not a checkpoint's document")
    return document


def _numbered(output_dir: Path) -> list[tuple[int, Path]]:
    if not output_dir.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in output_dir.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in matches if match)
