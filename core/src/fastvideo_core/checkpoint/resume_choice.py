"""Which checkpoint `latest`, a run's folder or a path means: the newest whose every byte is as it was written."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.storage import check_files, parse_document
from fastvideo_core.distributed import context
from fastvideo_core.errors import CheckpointError, Problem

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


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
    killed save had just put aside counts again; not while somebody else may be saving.

    Raises:
        CheckpointError: there is none, it is not whole, or of another format; on all processes alike.
    """
    folders = _from_main(lambda: _newest_first(which, output_dir, put_back))
    passed_over: list[tuple[Path, str]] = []
    for folder in folders:
        why, step = _from_main(lambda folder=folder: _looked_at(folder))  # type: ignore[misc]
        if not why:
            why = next(filter(None, context.gathered(damage(folder, context.rank(), context.world_size()))), "")
        if not why:
            return Choice(folder, step, tuple(passed_over))
        passed_over.append((folder, why))
    if folders == [Path(which).expanduser()]:
        raise storage.not_whole(*passed_over[0])
    reasons = "".join(f"\n      {path.name}: {why}" for path, why in passed_over)
    where = str(output_dir if str(which) == "latest" else which)
    fix = "check training.output_dir, or start without resuming in a new one"
    raise CheckpointError(Problem(f"there is no whole checkpoint to resume from{reasons}", where, fix=fix))


def damage(folder: Path, part: int = 0, parts: int = 1) -> str:
    """What was changed of a checkpoint since it was written; empty when nothing was. Reads every byte of share `part`."""
    try:
        document = parse_document(folder)
        largest_first = sorted(document.files, key=lambda name: (-document.files[name].size, name))
        check_files(folder, largest_first[part::parts], document)
    except CheckpointError as error:
        return "; ".join(f"{os.path.relpath(one.where, folder)} {one.found}" for one in error.problems)
    return ""


def _newest_first(which: str | Path, output_dir: Path, put_back: bool) -> list[Path]:
    if str(which) != "latest":
        return storage.named_checkpoints(which)
    if put_back:
        try:
            storage.put_back_replaced(output_dir)
        except OSError as error:
            logger.warning("a checkpoint that a killed save had put aside could not be put back: %s", error)
    return storage.checkpoints(output_dir)[::-1]


def _looked_at(folder: Path) -> tuple[str, int]:
    """Why a checkpoint is not whole, else its step."""
    why = storage.flaw(folder)
    return why, 0 if why else storage.read_document(folder).step


def _from_main(act: Callable[[], _T]) -> _T:
    """What the main process finds, or its error, on all of them."""
    found: _T | CheckpointError | None = None
    if context.is_main_process():
        try:
            found = act()
        except CheckpointError as error:
            found = error
    found = context.from_main(found)
    if isinstance(found, CheckpointError):
        raise found
    return found  # type: ignore[return-value]
