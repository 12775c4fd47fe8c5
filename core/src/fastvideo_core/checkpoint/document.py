"""state.json: the files that a checkpoint is made of, with their sums, and everything in it that is not a tensor."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastvideo_core.errors import CheckpointError, Problem, foreign_file

FORMAT = 4
"""Version of the layout of a checkpoint folder, the only one that is read."""

DOCUMENT = "state.json"
SUM = "state.json.sum"

_BLOCK = 2**20
_CHANGED = "was changed since it was written"
DAMAGED = "use another checkpoint; this one is damaged"

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class OtherFormatError(CheckpointError):
    """A checkpoint that another version of this program wrote."""


class StoredFile(BaseModel):
    """Size in bytes and CRC-32 of a file of a checkpoint."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: _Count
    crc32: _Count


class CheckpointDocument(BaseModel):
    """What state.json holds; it is written last.

    Args:
        step: optimizer steps done.
        world_size: processes that wrote it.
        versions: of fastvideo-core, torch and the plug-ins.
        files: every other file, by path inside the folder.
        state: the skeleton of the run's state, see `tree.split`.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    format: _Count
    step: _Count
    world_size: Annotated[int, Field(ge=1, lt=2**31)]
    versions: dict[str, str]
    files: dict[str, StoredFile]
    state: Any


def write_document(folder: Path, document: CheckpointDocument) -> None:
    """Writes state.json, and its sum beside it."""
    sign_document(folder, json.dumps(document.model_dump(), allow_nan=False, indent=1).encode())


def sign_document(folder: Path, content: bytes) -> None:
    """Writes the content of state.json, and its sum beside it, to the disk."""
    for name, part in ((DOCUMENT, content), (SUM, _sum_of(content))):
        (folder / name).write_bytes(part)
        sync(folder / name)


def parse_document(folder: Path) -> CheckpointDocument:
    """state.json as it was written.

    Raises:
        OtherFormatError: it is of another format.
        CheckpointError: it is missing, damaged, or says what cannot be.
    """
    path = folder / DOCUMENT
    with foreign_file(path, "checkpoint's list", CheckpointError, "use another checkpoint"):
        text = path.read_bytes()
        signed = (folder / SUM).is_file()
        if signed and (folder / SUM).read_bytes() != _sum_of(text):
            raise _damaged(path, _CHANGED)
        content = json.loads(text)
        if isinstance(content, dict) and type(content.get("format")) is int and content["format"] != FORMAT:
            raise _other_format(folder, content)
        if not signed:
            raise _damaged(path, f"its sum ({SUM}) is missing")
        try:
            document = CheckpointDocument.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "the whole"
            found = f"{key} is {json.dumps(first['input'])[:80]}" if first["type"] != "missing" else f"{key} is missing"
            raise _damaged(path, f"{found} ({first['msg'][:1].lower()}{first['msg'][1:]})") from None
    for name in document.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _damaged(path, f"files: {name!r} is outside of the checkpoint")
    return document


# --- sums -------------------------------------------------------------------------------------------------------------


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
    block, total = memoryview(bytearray(_BLOCK)), 0
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
                raise _damaged(folder / name, _CHANGED)


def _sum_of(content: bytes) -> bytes:
    return StoredFile(size=len(content), crc32=zlib.crc32(content)).model_dump_json().encode()


def _damaged(path: Path, found: str) -> CheckpointError:
    return CheckpointError(Problem(found, str(path), fix=DAMAGED))


def _other_format(folder: Path, content: dict[str, Any]) -> OtherFormatError:
    versions = content.get("versions")
    writer = str(versions.get("fastvideo-core", "")) if isinstance(versions, dict) else ""
    found = f"the checkpoint has format {content['format']}, written by fastvideo-core {writer or 'another version'}"
    other = f": pip install fastvideo-core=={writer}" if content["format"] > FORMAT else "; or start a new run"
    fix = f"resume or export it with the version that wrote it{other}"
    return OtherFormatError(Problem(found, str(folder), f"format {FORMAT}", fix))
