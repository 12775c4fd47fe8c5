"""What `train` prints besides errors: as much as was asked for, as text or as JSON objects a line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastvideo_core.errors.shown import printable, without_secrets
from fastvideo_core.launch.stdio import FAILURES, PrintableFormatter, complain, say

if TYPE_CHECKING:
    from fastvideo_core.tracking.display import Display

logger = logging.getLogger(__name__)

Mode = Literal["normal", "quiet", "verbose", "json"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--quiet, --verbose and --json; at most one of them."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print warnings, errors and where the run is; nothing else")
    group.add_argument("--verbose", action="store_true", help="print every metric and debugging messages")
    group.add_argument("--json", action="store_true", help="print JSON objects, one a line, for programs")


def console_of(args: argparse.Namespace, *, speaks: bool) -> Console:
    """What was asked for on the command line.

    Args:
        speaks: whether this process reports; the others of a run print errors only.
    """
    mode: Mode = "quiet" if args.quiet else "verbose" if args.verbose else "json" if args.json else "normal"
    return Console(mode, speaks)


@dataclass(frozen=True)
class Console:
    """Standard output takes what the run tells, standard error warnings and errors (with --json, all is on standard output).

    A run goes on when one of them fails.
    """

    mode: Mode = "normal"
    speaks: bool = True

    def set_up_logging(self) -> None:
        """Log messages of all libraries go where the mode wants them."""
        levels = {"normal": logging.INFO, "quiet": logging.WARNING, "verbose": logging.INFO, "json": logging.INFO}
        handler: logging.Handler = _BesideTheBar()
        handler.setFormatter(PrintableFormatter("%(message)s"))
        if self.mode == "json":
            handler = _JsonHandler()
        logging.basicConfig(level=levels[self.mode] if self.speaks else logging.ERROR, handlers=[handler])
        if self.mode == "verbose" and self.speaks:  # of this project alone: torch's would bury it
            logging.getLogger("fastvideo_core").setLevel(logging.DEBUG)

    def display(self) -> Display:
        """How logged steps are shown."""
        from fastvideo_core.tracking.display import Display, JsonLines, LogLines, display_for

        if not self.speaks or self.mode == "quiet":
            return Display()
        if self.mode == "json":
            return JsonLines(sys.stdout)
        return LogLines(sys.stdout, every_metric=True) if self.mode == "verbose" else display_for(sys.stdout)

    def tell(self, event: str, title: str, facts: Mapping[str, Any], *, also_quiet: bool = False) -> None:
        """A title and facts below it, by name; with --json one object with plain values.

        Args:
            also_quiet: said with --quiet too, the title alone.
        """
        if not self.speaks or (self.mode == "quiet" and not also_quiet):
            return
        try:
            self._print(event, title, facts)
        except FAILURES as error:
            logger.error("standard output cannot be written (%s); the run goes on without it", error)

    def _print(self, event: str, title: str, facts: Mapping[str, Any]) -> None:
        if self.mode == "json":
            print(json.dumps(without_secrets({"event": event, "title": title, **facts}), default=str), flush=True)
            return
        say(title)
        if self.mode != "quiet":
            width = max(map(len, facts), default=0)
            for name, value in facts.items():
                lines = value if isinstance(value, (list, tuple)) else [value]
                for number, line in enumerate(lines):
                    say(f"  {name if number == 0 else '':<{width}}  {line}")
        if sys.stdout is not None:  # it was closed when Python started
            sys.stdout.flush()


class _Handler(logging.Handler):
    """A log message as text; what cannot be shown is no error of who logged it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # as logging's own handlers: a message and arguments that do not fit may raise anything
            self.handleError(record)
            return
        try:
            self.write(text)
        except FAILURES:
            self.write_elsewhere(record)

    @abstractmethod
    def write(self, text: str) -> None:
        """Shows a formatted message."""

    def write_elsewhere(self, record: logging.LogRecord) -> None:
        """Where `write` failed."""


class _BesideTheBar(_Handler):
    """Log messages on standard error, each on a line of its own: a bar on the terminal is drawn again below it."""

    def write(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)


class _JsonHandler(_Handler):
    """A log message as one JSON object on standard output; as plain text on standard error where that fails."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {"event": "log", "level": record.levelname.lower(), "message": printable(record.getMessage())}
        )

    def write(self, text: str) -> None:
        print(text, flush=True)

    def write_elsewhere(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())
