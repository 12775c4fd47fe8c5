"""Errors that a user can act on: where, what was found, what is allowed, what to do; and the exit code of each kind."""

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastvideo_core.errors.shown import printable as printable

_LONG = 60  # characters of `allowed` that a list of problems repeats
_LISTED = 5  # names in one problem


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what was `found`, in one sentence, what would be `allowed`, and what to do about it.

    `where` is a file with its line, a dotted key, a plug-in or a row. What another part says already is left empty.
    """

    found: str
    where: str = ""
    allowed: str = ""
    fix: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.found}" if self.where else self.found]
        if self.allowed:
            lines.append(f"    allowed: {self.allowed}")
        if self.fix:
            lines.append(f"    fix: {self.fix}")
        return printable("\n".join(lines))


class FastVideoError(Exception):
    """Base of every error that this project raises on purpose; `exit_code` is the process's status."""

    exit_code = 1
    title = ""

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"{self.title or 'several things are wrong'} ({len(self.problems)} problems):"]
        first: dict[str, int] = {}  # what is allowed, where it is long, is written out once
        for number, problem in enumerate(self.problems, 1):
            earlier = first.setdefault(problem.allowed, number)
            again = earlier < number and len(problem.allowed) > _LONG
            shown = replace(problem, allowed=f"as in {earlier}.") if again else problem
            lines.append(f"  {number}. " + str(shown).replace("\n", "\n  "))
        return "\n".join(lines)


class UserError(FastVideoError):
    """The user's input is wrong (exit code 2): shown as one message, never as a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """run.yaml, or an option on the command line, is wrong."""

    title = "the run's configuration is wrong"


class PluginError(UserError):
    """A plug-in is missing, broken, ambiguous or does not fit this core."""

    title = "plug-ins do not fit"


class ContractError(UserError):
    """A family does not offer what a method needs, or offers it with another signature."""

    title = "the model family does not fit the method"


class DataError(UserError):
    """A data set, video, caption or prompt file cannot be used."""

    title = "the data cannot be used"


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, damaged or belongs to another run."""

    title = "the checkpoint cannot be used"


class NonFiniteError(FastVideoError):
    """A loss, gradient or score became NaN or infinite; nothing after it can be trusted."""


class RunStopped(FastVideoError):  # noqa: N818 - nothing is wrong
    """The run ended early because it was asked to; nothing is wrong. `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_RUST_PANIC = "PanicException"  # of pyo3: a Rust library (tokenizers, safetensors) gave up; no Exception
_ADVICE = dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)")


@contextmanager
def foreign_file(path: str | Path, what: str, error: type[FastVideoError] = DataError, fix: str = "") -> Iterator[None]:
    """Whatever goes wrong while a file that this program did not make is read becomes one message that names the file.

    It stands around the whole reading of one file, at the boundary; errors of this project pass as they are. `what` the file is
    meant to be has no article ("parquet file"). `fix` is for a damaged file; one that cannot be opened has its own advice.
    Raises `error`, which tells the cause; its traceback is shown with --debug.
    """
    try:
        yield
    except FastVideoError:
        raise
    except BaseException as cause:  # foreign content can make a parser raise anything at all
        if not isinstance(cause, Exception) and type(cause).__name__ != _RUST_PANIC:
            raise
        found = f"is no valid {what}: {_first_line(cause)}"
        if isinstance(cause, RecursionError):
            found = f"is no valid {what}: it is nested too deeply"
        elif isinstance(cause, MemoryError):
            found, fix = "cannot be read: it takes more memory than there is", ""
        elif isinstance(cause, OSError):
            found = f"cannot be read: {cause.strerror or _first_line(cause)}"
            fix = fix if cause.errno is None else _ADVICE.get(cause.errno, "")
        raise error(Problem(found, str(path), fix=fix)) from cause


def _first_line(cause: BaseException) -> str:
    """What an error says, short enough for a message; with its kind where it was hardly meant to be read."""
    line = next(iter(str(cause).strip().splitlines()), "")[:300]
    said = line and isinstance(cause, (ValueError, OSError, RuntimeError)) and not isinstance(cause, UnicodeEncodeError)
    return line if said else f"{type(cause).__name__} {line}".strip()


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """The first of many names, and how many more there are; "none" of none."""
    known = list(names)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return separator.join(known[:_LISTED]) + more or "none"


def closest(name: Any, known: Iterable[str]) -> str:
    """The known name of which `name` is a slip of the pen; empty when none is.

    Names are compared word by word: one with another word in it (max_train_epochs, cosine_with_min_lr) means something else.
    """
    words = _words(name)
    joined = "".join(words)
    for candidate in difflib.get_close_matches(str(name).lower(), list(dict.fromkeys(known)), n=3, cutoff=0.6):
        others = _words(candidate)
        alike = len(words) == len(others) and all(map(_alike, words, others))
        if alike or _alike(joined, "".join(others), least=0.95):
            return candidate
    return ""


def did_you_mean(name: Any, known: Iterable[str], otherwise: str = "") -> str:
    """ "did you mean 'wan'?", or `otherwise` when no name is close."""
    guess = closest(name, known)
    return f"did you mean {guess!r}?" if guess else otherwise


def _words(name: Any) -> list[str]:
    return re.split(r"[_\W]+", str(name).lower())


def _alike(one: str, other: str, least: float = 0.65) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= least
