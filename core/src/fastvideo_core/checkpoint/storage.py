"""Folders of checkpoints: renamed when they are written, so that each is whole or absent; state.json lists their files.

`latest`, a run's folder or a path means the newest whose every byte is as it was written (`choose`).
"""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, FastVideoError, Problem, foreign_file

logger = logging.getLogger(__name__)

FORMAT = 4  # version of the layout of a checkpoint folder, the only one that is read
TENSORS, RUN_CONFIG, DOCUMENT, SUM = "state", "run.yaml", "state.json", "state.json.sum"
DAMAGED = "use another checkpoint; this one is damaged"

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Inside = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]  # a path inside the folder: no part is ".."
_NAME = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = re.compile(r"\.checkpoint-\d+\.(tmp|replaced|removed)")


class CheckpointWriteError(FastVideoError):
    """A checkpoint could not be written; those before it are intact."""

    title = "the run ended, as a checkpoint could not be written"


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return output_dir / f"checkpoint-{step:06d}"


# --- state.json -------------------------------------------------------------------------------------------------------


class OtherFormatError(CheckpointError):
    """A checkpoint that another version of this program wrote."""


class StoredFile(BaseModel):
    """Size in bytes and CRC-32 of a file of a checkpoint."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: _Count
    crc32: _Count


class CheckpointDocument(BaseModel):
    """What state.json holds: `files` are all others by path inside the folder, `versions` those of fastvideo-core, torch and the
    plug-ins, `state` is the skeleton of the run's state (see `tree.split`), `step` counts optimizer steps, and `world_size`
    processes wrote it, of which each `sequence_parallel` shared their samples."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: _Count = FORMAT
    step: _Count
    world_size: Annotated[int, Field(ge=1, lt=2**31)]
    sequence_parallel: Annotated[int, Field(ge=1, lt=2**31)] = 1
    versions: dict[str, str]
    files: dict[_Inside, StoredFile]
    state: Any

    def largest_first(self) -> list[str]:
        """The names of its files, so that processes get shares of like bytes."""
        return sorted(self.files, key=lambda name: (-self.files[name].size, name))


def write_document(folder: Path, document: CheckpointDocument) -> None:
    """Writes state.json and its sum, which are a checkpoint's last files, to the disk."""
    unsaid = None if document.sequence_parallel > 1 else {"sequence_parallel"}  # which earlier versions do not know
    content = json.dumps(document.model_dump(exclude=unsaid), allow_nan=False, indent=1).encode()
    for name, part in ((DOCUMENT, content), (SUM, _sum_of(content))):
        (folder / name).write_bytes(part)
        sync(folder / name)


def read_document(folder: Path, share: slice = slice(None)) -> CheckpointDocument:
    """state.json as it was written; raises OtherFormatError, or CheckpointError when it, or one of a `share` of its files, the
    largest first, is not whole."""
    path = folder / DOCUMENT
    with foreign_file(path, "checkpoint's list", CheckpointError, DAMAGED):
        text = path.read_bytes()
        if not (folder / SUM).is_file() or (folder / SUM).read_bytes() != _sum_of(text):
            raise _damaged(path, f"is not what was written, by its sum ({SUM})")
        content = json.loads(text)
        if isinstance(content["format"], int) and content["format"] != FORMAT:
            writer = content["versions"]["fastvideo-core"]
            found = f"the checkpoint has format {content['format']}, written by fastvideo-core {writer}"
            fix = f"resume or export it with that version (pip install fastvideo-core=={writer}), or start a new run"
            raise OtherFormatError(Problem(found, str(folder), f"format {FORMAT}", fix))
        document = CheckpointDocument.model_validate(content)
    for name in document.largest_first()[share]:
        if not (folder / name).is_file():
            raise _damaged(folder / name, "is missing")
        if (size := (folder / name).stat().st_size) != document.files[name].size:
            raise _damaged(folder / name, f"has {size} bytes instead of {document.files[name].size}")
    return document


def flaw(folder: Path, share: slice = slice(0), sizes: slice = slice(None)) -> str:
    """Why a checkpoint is not whole, by its list, the `sizes` of its files and the bytes of a `share` of them, the largest first;
    empty when it is, or of another format."""
    try:
        document = read_document(folder, sizes)
        check_files(folder, document.largest_first()[share], document)
    except OtherFormatError:
        return ""
    except CheckpointError as error:
        (problem,) = error.problems
        return f"{os.path.relpath(problem.where, folder)} {problem.found}"
    return ""


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def synced(path: Path) -> StoredFile:
    """Size and sum of a file that was just written, once it is on the disk."""
    with ThreadPoolExecutor(1) as beside:
        on_disk = beside.submit(sync, path)
        stored = StoredFile(size=path.stat().st_size, crc32=checksum(path))
        on_disk.result()
    return stored


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    block, total = memoryview(bytearray(2**20)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            total = zlib.crc32(block[:count], total)
    return total


def check_files(folder: Path, names: Iterable[str], document: CheckpointDocument) -> None:
    """Reads files of a checkpoint; raises CheckpointError when one cannot be read or is not what was written."""
    for name in names:
        with foreign_file(folder / name, "part of a checkpoint", CheckpointError, DAMAGED):
            if name not in document.files:
                raise _damaged(folder / name, f"{DOCUMENT} does not list it")
            if checksum(folder / name) != document.files[name].crc32:
                raise _damaged(folder / name, "was changed since it was written")


def _sum_of(content: bytes) -> bytes:
    return StoredFile(size=len(content), crc32=zlib.crc32(content)).model_dump_json().encode()


def _damaged(path: Path, found: str) -> CheckpointError:
    return CheckpointError(Problem(found, str(path), fix=DAMAGED))


# --- writing ----------------------------------------------------------------------------------------------------------


def unfinished(target: Path) -> Path:
    """The folder in which a checkpoint is written before `publish` puts it in its place."""
    return target.with_name(f".{target.name}.tmp")


def make_empty(folder: Path) -> None:
    """Makes the folder; what an earlier attempt left in it is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove(folder)
    folder.mkdir()


def publish(written: Path, target: Path) -> None:
    """Puts a folder, once it is on the disk, in the place of `target`, which stays as it was when that fails."""
    for folder, _, _ in os.walk(written):
        sync(Path(folder))
    replaced = target.with_name(f".{target.name}.replaced")
    if target.exists():
        remove(replaced)
        os.rename(target, replaced)
    try:
        os.rename(written, target)
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
    kept, number = path.with_name(f"{path.name}.damaged"), 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{number}")
    try:
        os.rename(path, kept)
    except OSError as error:
        logger.error("%s could not be set aside as %s: %s", path, kept.name, error.strerror)
    else:
        logger.error("%s is kept as %s; remove it when it is not needed", path, kept.name)


def remove_oldest(output_dir: Path, keep: int, newest: Path) -> None:
    """Removes complete checkpoints, lowest step first, until `keep` are left; never `newest`. 0 keeps all."""
    others = [path for path in checkpoints(output_dir) if path != newest and not flaw(path)] if keep else []
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
        if _TEMPORARY.fullmatch(path.name):
            remove(path)


# --- finding ---------------------------------------------------------------------------------------------------------


def checkpoints(output_dir: Path, after: int = -1) -> list[Path]:
    """The checkpoints of steps after `after`, whole or not, the oldest first."""
    folders = [path for path in output_dir.iterdir() if path.is_dir()] if output_dir.is_dir() else []
    found = sorted((int(name[1]), path) for path in folders if (name := _NAME.fullmatch(path.name)))
    return [path for step, path in found if step > after]


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


def resolve_checkpoint(path: str | Path) -> Path:
    """The complete checkpoint that `path` means: itself, or the newest in a run's folder, others being passed over with a
    warning. Their tensors are not looked at. Raises CheckpointError when there is none, or it is not whole."""
    whole, passed_over = _first_whole(named_checkpoints(path), path, flaw)
    for folder, why in passed_over:
        logger.warning("%s is passed over: it is not whole (%s)", folder, why)
    return whole


@dataclass(frozen=True)
class Choice:
    """A whole checkpoint, and the newer ones of the same run that are passed over as they are not whole, with the reason."""

    path: Path
    step: int
    passed_over: tuple[tuple[Path, str], ...] = ()

    def notes(self) -> list[str]:
        """What the user must hear of those that are passed over."""
        return [f"{path} IS NOT WHOLE: {why}; going on from {self.path} instead" for path, why in self.passed_over]


def choose(which: str | Path, output_dir: Path, *, put_back: bool = True) -> Choice:
    """The checkpoint meant by `latest` (the newest whole one of `output_dir`), by a run's folder (likewise) or by its path.

    Collective: the main process looks at the folders, all of them read the files, each its part. With `put_back`, what a
    killed save had just put aside counts again; not while somebody else may be saving. Raises CheckpointError when there is
    none, it is not whole, or of another format; on all processes alike.
    """
    named = output_dir if str(which) == "latest" else which

    def look() -> list[Path]:
        if put_back:
            with suppress(OSError):  # a folder that cannot be written is told as such
                put_back_replaced(output_dir)
        return checkpoints(output_dir)[::-1] if named is output_dir else named_checkpoints(which)

    found = context.told_by_main(look)
    share = slice(context.rank(), None, context.world_size())

    def flaw_by_any(folder: Path) -> str:
        return next(filter(None, context.gathered(flaw(folder, share, share))), "")

    path, passed_over = _first_whole(found, named, flaw_by_any)
    return Choice(path, read_document(path, slice(0)).step, passed_over)


def _first_whole(
    folders: list[Path], named: str | Path, flaw_of: Callable[[Path], str]
) -> tuple[Path, tuple[tuple[Path, str], ...]]:
    """The first that has no flaw, and those before it with theirs; CheckpointError where all that the user `named` have one."""
    passed_over: list[tuple[Path, str]] = []
    for folder in folders:
        why = flaw_of(folder)
        if not why:
            return folder, tuple(passed_over)
        passed_over.append((folder, why))
    if folders == [Path(named).expanduser()]:
        found = f"the checkpoint is not whole: {passed_over[0][1]}"
        raise CheckpointError(Problem(found, str(folders[0]), fix="use another checkpoint"))
    reasons = "".join(f"\n      {path.name}: {why}" for path, why in passed_over)
    fix = "name the output_dir of a run that has saved, or start a new run without resuming"
    raise CheckpointError(Problem(f"there is no whole checkpoint in it{reasons}", str(named), fix=fix))
