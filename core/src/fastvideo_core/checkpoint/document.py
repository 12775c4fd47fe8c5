"""state.json: what a checkpoint is made of."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastvideo_core.checkpoint.checksums import SUFFIX, read_summed, write_summed
from fastvideo_core.errors import CheckpointError, Problem, foreign_file

FORMAT = 3
"""Version of the layout of a checkpoint folder. Format 2, of which not every file has sums, is read too."""

READABLE = (2, FORMAT)

DOCUMENT = "state.json"

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class CheckpointDocument(BaseModel):
    """What state.json holds; it is the last file written, and lists all others.

    Attributes:
        format: version of the layout.
        step: optimizer steps done.
        world_size: processes that wrote it.
        versions: of fastvideo-core, torch and the plug-ins.
        files: size in bytes of every other file, by path inside the folder.
        sums: of each of these that holds the sums of another.
        state: skeleton of the state tree, see `tree.split`.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    format: _Count
    step: _Count
    world_size: Annotated[int, Field(ge=1, lt=2**31)]
    versions: dict[str, str]
    files: dict[str, _Count]
    sums: dict[str, _Count] = {}
    state: Any


def write_document(folder: Path, document: CheckpointDocument) -> None:
    """Writes state.json and its sum; everything else must be there already."""
    write_summed(folder / DOCUMENT, json.dumps(document.model_dump(), allow_nan=False, indent=1).encode())


def parse_document(folder: Path) -> CheckpointDocument:
    """state.json as it was written, of any format.

    Raises:
        CheckpointError: it is missing, damaged, or says what cannot be.
    """
    path = folder / DOCUMENT
    with foreign_file(path, "checkpoint's list", CheckpointError, "use another checkpoint"):
        content = json.loads(read_summed(path))
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


def unsummed(folder: Path, document: CheckpointDocument) -> list[str]:
    """The files whose sums are not where they should be; format 2 has not all of them."""
    if document.format < FORMAT:
        return []
    named = {name for name in document.files if name.endswith(SUFFIX)}
    missing = {name for name in document.files.keys() - named if name + SUFFIX not in named}
    missing |= named ^ document.sums.keys()
    if not (folder / (DOCUMENT + SUFFIX)).is_file():
        missing.add(DOCUMENT)
    return sorted(missing)


def _damaged(path: Path, found: str) -> CheckpointError:
    return CheckpointError(Problem(found, str(path), fix="use another checkpoint; this one is damaged"))
