"""Parts of a pipeline's folder copied into a new one: only what its index names, only into it, only from it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastvideo_core.errors import ConfigError, Problem

_NAME = re.compile(r"\w[\w.-]*")
ROOT_FILES = ("model_index.json", "*[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*")
"""What is copied besides components: a pipeline's repository often holds whole checkpoints in other formats beside them."""


def component_names(index: Mapping[str, Any], *, where: str) -> list[str]:
    """The sub-folders that a model_index.json names.

    Raises:
        ConfigError: a name that is no plain name of a folder, or a class that is none.
    """
    lists = {name: entry for name, entry in index.items() if isinstance(entry, list | tuple)}
    entries = {name: entry for name, entry in lists.items() if any(isinstance(part, str) for part in entry)}
    problems = [
        Problem(f"model_index.json names the component {name!r} as {entry!r}", where, allowed="plain names")
        for name, entry in entries.items()
        if not _NAME.fullmatch(name) or not all(isinstance(part, str) and _NAME.fullmatch(part) for part in entry)
    ]
    if problems:
        raise ConfigError(problems)
    return list(entries)


def copy_parts(source: Path, target: Path, components: Iterable[str]) -> None:
    """Copies components, the index and the license of the pipeline `source` into the folder `target`.

    Links are followed where they lead to files of the pipeline itself; a snapshot of the hub's cache is links to the blobs
    beside it.

    Raises:
        ConfigError: a link leads elsewhere, a component is missing, or a file cannot be copied.
    """
    root = source.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parents[1] / "blobs")
    files = [file for pattern in ROOT_FILES for file in sorted(root.glob(pattern)) if not file.is_dir()]
    problems: list[Problem] = []
    for name in components:
        if not (root / name).is_dir():
            problems.append(Problem(f"has no subfolder {name}/", str(source)))
        elif not (root / name).resolve().is_relative_to(root):
            problems.append(_strange(root / name, source, root))
            continue
        for folder, folders, names in os.walk(root / name):
            files += [Path(folder) / file for file in names]
            problems += [
                _strange(Path(folder) / one, source, root) for one in folders if (Path(folder) / one).is_symlink()
            ]
    for file in files:
        if not (file.is_file() and any(file.resolve().is_relative_to(home) for home in homes)):
            problems.append(_strange(file, source, root))
    if problems:
        raise ConfigError(problems)
    for file in files:
        copy = target / file.relative_to(root)
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        except OSError as error:
            raise ConfigError(Problem(f"cannot be copied: {error.strerror}", str(file))) from error


def _strange(file: Path, source: Path, root: Path) -> Problem:
    what = f"a link to {os.readlink(file)}" if file.is_symlink() else "no plain file"
    fix = "put a copy in its place" if file.is_symlink() else "remove it"
    return Problem(f"{file.relative_to(root)} is {what}, out of the pipeline's folder", str(source), fix=fix)


def not_empty(out: Path) -> list[Problem]:
    """What is wrong with a folder that a pipeline is to be written into; nothing where it is absent or empty."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        return [Problem("is not an empty folder", where=str(out), fix="name a new folder")]
    return []


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, so that `out` is complete or absent.

    What a killed process of this machine left there is removed first.

    Raises:
        ConfigError: `out` is not empty.
    """
    if problems := not_empty(out):
        raise ConfigError(problems)
    out.parent.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"\W", "-", socket.gethostname())
    mine = f".{out.name[:100]}.{host}-"
    for leftover in out.parent.glob(f"{mine.translate(_LITERAL)}*"):
        process, _, _ = leftover.name.removeprefix(mine).partition(".")
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}.", dir=out.parent))
    try:
        yield aside
        aside.chmod(0o755)
        os.replace(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


_LITERAL = str.maketrans({character: f"[{character}]" for character in "*?["})


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True
